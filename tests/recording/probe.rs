//! Inspection of files with ffprobe and ffmpeg.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run(program: &str, arguments: &[&str], file: &Path) -> Output {
    let mut command = Command::new(program);
    command.args(["-v", "error", "-hide_banner"]);
    if program == "ffmpeg" {
        command.arg("-nostdin").args(&arguments[..arguments.len().min(2)]);
        command.arg("-i").arg(file).args(&arguments[arguments.len().min(2)..]);
    } else {
        command.args(arguments).arg(file);
    }
    command
        .output()
        .unwrap_or_else(|error| panic!("{program} does not run ({error}): scripts/setup.sh test installs it"))
}

/// The output of ffprobe; panics on errors and warnings.
pub struct Probe(Value);

impl Probe {
    pub fn of(file: &Path) -> Self {
        let arguments = ["-count_packets", "-show_entries", "format:stream:chapter", "-show_chapters", "-of", "json"];
        let output = run("ffprobe", &arguments, file);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", file.display());
        Self(serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    fn stream(&self, kind: &str) -> Option<&Value> {
        self.0["streams"].as_array()?.iter().find(|stream| stream["codec_type"] == kind)
    }

    /// Whether there is a stream of this kind (`video`, `audio`).
    pub fn has(&self, kind: &str) -> bool {
        self.stream(kind).is_some()
    }

    pub fn codec(&self, kind: &str) -> &str {
        self.stream(kind).and_then(|stream| stream["codec_name"].as_str()).unwrap_or_default()
    }

    pub fn packets(&self, kind: &str) -> u64 {
        number(&self.stream(kind).expect("there is such a stream")["nb_read_packets"]) as u64
    }

    /// Start time of a stream in seconds.
    pub fn start(&self, kind: &str) -> f64 {
        number(&self.stream(kind).expect("there is such a stream")["start_time"])
    }

    /// Duration of the file in seconds.
    pub fn duration(&self) -> f64 {
        number(&self.0["format"]["duration"])
    }

    /// Title and start in seconds of each chapter.
    pub fn chapters(&self) -> Vec<(String, f64)> {
        let chapters = self.0["chapters"].as_array().cloned().unwrap_or_default();
        let title = |chapter: &Value| chapter["tags"]["title"].as_str().unwrap_or_default().to_owned();
        chapters.iter().map(|chapter| (title(chapter), number(&chapter["start_time"]))).collect()
    }
}

fn number(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
}

/// Decodes a whole file; panics on errors and warnings.
pub fn decodes(file: &Path) {
    let output = run("ffmpeg", &["-xerror", "-y", "-f", "null", "-"], file);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", file.display());
}

/// Time in seconds of the first packet of a stream after a seek to `to`.
pub fn jump(file: &Path, stream: &str, to: f64) -> f64 {
    let interval = format!("{to}%+#1");
    let arguments =
        ["-select_streams", stream, "-read_intervals", &interval, "-show_entries", "packet=pts_time", "-of", "csv=p=0"];
    let output = run("ffprobe", &arguments, file);
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().and_then(|line| line.trim_end_matches(',').parse().ok());
    first.unwrap_or_else(|| panic!("{}: no packet after a jump to {to}: {text}", file.display()))
}
