//! The check of filters with GStreamer: in `commingle config check`, and at the start of the server in a process of its
//! own, because the serving process does not load GStreamer.
//!
//! Owns: which faults are errors, and which are advice. Does not know: the files ([`crate::config`]), how a filter is
//! made ([`crate::pipeline`]). In: the configuration. Out: texts.

use std::process::{Command, Stdio};
use std::thread;

use crate::codec;
use crate::config::Config;
use crate::filter::Catalog;
use crate::pipeline::{PipelineError, filter};

/// What is wrong with the filters of a configuration.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Files that can never work.
    pub(super) errors: Vec<String>,
    /// Elements that are not installed.
    pub(super) missing: Vec<String>,
}

/// Makes every filter with the defaults of its parameters.
pub(super) fn check(catalog: &Catalog) -> Findings {
    let mut findings = Findings::default();
    let mut filters = catalog.defaults().peekable();
    if filters.peek().is_none() {
        return findings;
    }
    if let Err(error) = codec::init() {
        findings.missing.push(error.to_string());
        return findings;
    }
    for one in filters {
        match filter::check(&one.spec(0)) {
            Ok(()) => {}
            Err(error @ PipelineError::Missing { .. }) => findings.missing.push(error.to_string()),
            Err(error) => findings.errors.push(error.to_string()),
        }
    }
    findings
}

/// Checks the filters by `commingle config check` in another process, and logs what is wrong. A server starts without
/// waiting for it: a filter that cannot be made costs nothing until it is applied, and is then removed with an event.
pub(super) fn check_in_background(config: &Config) {
    if config.filters.allow.is_empty() {
        return;
    }
    let allow = format!("filters.allow={}", config.filters.allow.join(","));
    let dir = config.filters.dir.clone().unwrap_or_else(|| config.data.dir.join("pipelines"));
    let dir = format!("filters.dir={}", dir.display());
    let run = move || {
        let ours = std::env::vars_os().map(|(name, _)| name);
        let ours: Vec<_> = ours.filter(|name| name.as_encoded_bytes().starts_with(b"COMMINGLE_")).collect();
        let mut command = Command::new(std::env::current_exe()?);
        // Only what concerns filters: the rest of the configuration was checked.
        command.args(["config", "check", "--config", "/dev/null", "--set", &allow, "--set", &dir]);
        for name in &ours {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).output()
    };
    let checked = move || match run() {
        Ok(output) if output.stderr.is_empty() => {}
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            text.lines().for_each(|line| tracing::warn!("filters: {line}"));
        }
        Err(error) => tracing::warn!(%error, "filters cannot be checked"),
    };
    if let Err(error) = thread::Builder::new().name("check-filters".into()).spawn(checked) {
        tracing::warn!(%error, "filters cannot be checked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_an_error_and_a_missing_element_is_advice() {
        let file = |name: &str, pipeline: &str| (name.to_owned(), format!("# A test.\n# media: video\n{pipeline}"));
        let catalog = Catalog::new([
            file("good", "videoconvert"),
            file("wrong", "identity nosuchproperty=1"),
            file("absent", "nosuchelement"),
        ]);
        let Findings { errors, missing } = check(&catalog.expect("declared well"));
        assert!(errors.len() == 1 && errors[0].contains("filter_wrong.gst"), "{errors:?}");
        assert!(missing.len() == 1 && missing[0].contains("nosuchelement"), "{missing:?}");
    }
}
