//! Section `[filters]`, and the files of filters.
//!
//! Owns: which filters are allowed, and the reading of their files. Does not know: the syntax of the files
//! ([`crate::filter`]), GStreamer. In: the section and the data folder; out: the [`Catalog`], or what is wrong with it.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::Findings;
use super::error::{ConfigError, Origin};
use super::{Config, ConfigErrors};
use crate::filter::{Catalog, SHIPPED};

/// Largest CPU time of a frame that can be allowed, in milliseconds.
const BUDGET_MAX_MS: u32 = 1_000;

/// Section `[filters]`: filters that moderators may apply to cameras, screens and microphones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filters {
    /// The names of the filters.
    pub allow: Vec<String>,
    /// Folder of files `filter_NAME.gst`; `pipelines` in the data folder if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// CPU time that a filter may take for a frame, in milliseconds. One that takes more is removed.
    pub frame_budget_ms: u32,
}

impl Default for Filters {
    fn default() -> Self {
        Self { allow: SHIPPED.map(|(name, _)| name.to_owned()).into(), dir: None, frame_budget_ms: 20 }
    }
}

impl Filters {
    /// CPU time that a filter may take for a frame.
    pub fn frame_budget(&self) -> Duration {
        Duration::from_millis(self.frame_budget_ms.into())
    }

    pub(super) fn check(&self, findings: &mut Findings) {
        findings.require(
            (1..=BUDGET_MAX_MS).contains(&self.frame_budget_ms),
            "filters.frame_budget_ms",
            format!("must be 1 to {BUDGET_MAX_MS}"),
        );
        let names: BTreeSet<&String> = self.allow.iter().collect();
        findings.require(names.len() == self.allow.len(), "filters.allow", "contains a name twice");
    }

    fn folder(&self, data: &Path) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| data.join("pipelines"))
    }
}

impl Config {
    /// The filters that are allowed. A file in the folder takes precedence over the filter of this name that is part of
    /// the program.
    ///
    /// # Errors
    /// One error per file that cannot be read or is invalid, and per name without a file.
    pub fn filters(&self) -> Result<Catalog, ConfigErrors> {
        let folder = self.filters.folder(&self.data.dir);
        let (mut files, mut wrong) = (Vec::new(), Vec::new());
        for name in &self.filters.allow {
            match text(&folder, name) {
                Ok(text) => files.push((name.clone(), text)),
                Err(reason) => wrong.push(reason),
            }
        }
        let catalog = Catalog::new(files).unwrap_or_else(|mut invalid| {
            wrong.append(&mut invalid);
            Catalog::default()
        });
        if wrong.is_empty() {
            return Ok(catalog);
        }
        let error = |reason| ConfigError::Value {
            origin: Origin::File(folder.clone(), 1),
            key: "filters.allow".into(),
            value: None,
            reason,
        };
        Err(ConfigErrors(wrong.into_iter().map(error).collect()))
    }
}

/// The text of a filter's file, from the folder or from the program.
fn text(folder: &Path, name: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.chars().all(valid) {
        return Err(format!("`{name}` is no name of a filter: write a-z, 0-9 and _"));
    }
    let path = folder.join(format!("filter_{name}.gst"));
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let shipped = SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
            shipped.ok_or_else(|| {
                let known = SHIPPED.map(|(name, _)| name).join(", ");
                format!("there is no filter `{name}`: add the file {}, or allow only {known}", path.display())
            })
        }
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_folder_take_precedence_and_missing_ones_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.filters.dir = Some(folder.path().to_owned());
        let names = |config: &Config| {
            let catalog = config.filters().expect("valid");
            catalog.defaults().map(|filter| filter.spec(1).pipeline).collect::<Vec<_>>()
        };
        assert_eq!(names(&config).len(), 3);
        fs::write(folder.path().join("filter_grayscale.gst"), "# Ours.\n# media: video\nidentity").expect("written");
        assert_eq!(names(&config).last().map(String::as_str), Some("identity"));
        config.filters.allow = vec!["grayscale".into(), "sepia".into(), "../blur".into()];
        let error = config.filters().expect_err("two are not there").to_string();
        assert!(error.contains("filter_sepia.gst") && error.contains("`../blur` is no name"), "{error}");
        config.filters.allow = vec!["grayscale".into()];
        fs::write(folder.path().join("filter_grayscale.gst"), "identity").expect("written");
        let error = config.filters().expect_err("no media").to_string();
        assert!(error.contains("filter_grayscale.gst: add the line"), "{error}");
        config.filters.allow.clear();
        assert!(names(&config).is_empty());
    }
}
