//! Reads the tables of ARCHITECTURE.md that state which module may import what.
//!
//! Owns: the form of these tables. They are the only source of the rules, so the document cannot differ from what is
//! checked. Does not know: source files. The document's text goes in, [`Rules`] come out; a table that cannot be read
//! is an error.

/// The heading of the layer table.
const LAYERS: &str = "## The layers";
/// The heading of the table of modules that never import each other.
const NEVER: &str = "### Modules that never meet";
/// The heading of the table of crates with their only importers.
const CRATES: &str = "### Crates with few importers";

/// What ARCHITECTURE.md states.
#[derive(Debug)]
pub(crate) struct Rules {
    /// From the lowest layer to the highest.
    pub(crate) rows: Vec<Row>,
    pub(crate) never: Vec<Never>,
    pub(crate) importers: Vec<Importers>,
}

/// One row of the layer table; a module may import from every row above its own.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) modules: Vec<String>,
    /// Whether the modules of the row may import each other.
    pub(crate) among_themselves: bool,
}

/// Modules that never import some others, even if their rows allow it.
#[derive(Debug)]
pub(crate) struct Never {
    pub(crate) from: Vec<String>,
    pub(crate) to: Vec<String>,
}

/// A crate, or a C library named by `#[link]`, with everything that begins with the same word and `_`.
#[derive(Debug)]
pub(crate) struct Importers {
    /// As Rust spells it, with `_`.
    pub(crate) name: String,
    pub(crate) modules: Vec<String>,
}

impl Rules {
    /// # Errors
    /// When a table is missing, or a row has another form or names an unknown module.
    pub(crate) fn parse(document: &str) -> Result<Self, String> {
        let mut rows = Vec::new();
        for cells in table(document, LAYERS, &["row", "modules", "among themselves", "owns"])? {
            let among_themselves = match cells[2].as_str() {
                "yes" => true,
                "" => false,
                other => return Err(format!("{LAYERS}: \"among themselves\" is `yes` or empty, not `{other}`")),
            };
            rows.push(Row { modules: names(LAYERS, &cells[1])?, among_themselves });
        }
        let mut never = Vec::new();
        for cells in table(document, NEVER, &["modules", "never import"])? {
            never.push(Never { from: names(NEVER, &cells[0])?, to: names(NEVER, &cells[1])? });
        }
        let mut importers = Vec::new();
        for cells in table(document, CRATES, &["crates", "only importers"])? {
            let modules = names(CRATES, &cells[1])?;
            for name in names(CRATES, &cells[0])? {
                importers.push(Importers { name: name.replace('-', "_"), modules: modules.clone() });
            }
        }
        let rules = Self { rows, never, importers };
        rules.check()?;
        Ok(rules)
    }

    /// The row in which a module stands.
    pub(crate) fn row_of(&self, module: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.modules.iter().any(|name| name == module))
    }

    fn check(&self) -> Result<(), String> {
        let mut seen = Vec::new();
        for module in self.rows.iter().flat_map(|row| &row.modules) {
            if seen.contains(&module) {
                return Err(format!("{LAYERS}: `{module}` stands in two rows"));
            }
            seen.push(module);
        }
        let mut crates = Vec::new();
        for Importers { name, .. } in &self.importers {
            if crates.contains(&name) {
                return Err(format!("{CRATES}: `{name}` stands in two rows"));
            }
            crates.push(name);
        }
        let never = self.never.iter().flat_map(|never| never.from.iter().chain(&never.to));
        let importers = self.importers.iter().flat_map(|importers| &importers.modules);
        match never.chain(importers).find(|module| !seen.contains(module)) {
            Some(module) => Err(format!("`{module}` stands in no row of \"{LAYERS}\"")),
            None => Ok(()),
        }
    }
}

/// The rows of the first table below a heading; each has as many cells as `columns`.
fn table(document: &str, heading: &str, columns: &[&str]) -> Result<Vec<Vec<String>>, String> {
    let below = document.lines().skip_while(|line| *line != heading).skip(1);
    let lines: Vec<&str> = below
        .take_while(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .collect();
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_start_matches('|').trim_end_matches('|').split('|').map(|cell| cell.trim().into()).collect()
    };
    let [head, _, rows @ ..] = lines.as_slice() else {
        return Err(format!("ARCHITECTURE.md has no table below \"{heading}\""));
    };
    if cells(head) != columns {
        return Err(format!("{heading}: the columns are {columns:?}, not {:?}", cells(head)));
    }
    let rows: Vec<_> = rows.iter().map(|row| cells(row)).collect();
    match rows.iter().find(|row| row.len() != columns.len()) {
        Some(row) => Err(format!("{heading}: {row:?} has not {} cells", columns.len())),
        None => Ok(rows),
    }
}

/// The names of a cell: each in backticks, and nothing else.
fn names(heading: &str, cell: &str) -> Result<Vec<String>, String> {
    let names: Option<Vec<String>> = cell
        .split_whitespace()
        .map(|word| word.strip_prefix('`')?.strip_suffix('`').filter(|name| !name.is_empty()).map(str::to_owned))
        .collect();
    match names {
        Some(names) if !names.is_empty() => Ok(names),
        _ => Err(format!("{heading}: a list of names, each in backticks, instead of `{cell}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# A\n\n## The layers\n\nText.\n\n\
        | row | modules | among themselves | owns |\n|---|---|---|---|\n\
        | words | `id` `time` | yes | names |\n| top | `main` | | |\n\nMore.\n\n### Modules that never meet\n\n\
        | modules | never import |\n|---|---|\n| `main` | `id` |\n\n### Crates with few importers\n\n\
        | crates | only importers |\n|---|---|\n| `cosmic-text` `url` | `time` |\n";

    #[test]
    fn tables_are_read() {
        let rules = Rules::parse(DOCUMENT).expect("is well formed");
        assert_eq!(rules.rows.len(), 2);
        assert_eq!(rules.rows[0].modules, ["id", "time"]);
        assert!(rules.rows[0].among_themselves && !rules.rows[1].among_themselves);
        assert_eq!(rules.row_of("main"), Some(1));
        assert_eq!(rules.row_of("mixer"), None);
        assert_eq!((&rules.never[0].from[..], &rules.never[0].to[..]), (&["main".into()][..], &["id".into()][..]));
        let names: Vec<&str> = rules.importers.iter().map(|importers| importers.name.as_str()).collect();
        assert_eq!(names, ["cosmic_text", "url"]);
    }

    #[test]
    fn malformed_tables_are_errors() {
        let cases = [
            ("## The layers", "## Layers", "no table below"),
            ("### Crates with few importers", "### Crates", "no table below"),
            ("| row |", "| rank |", "the columns are"),
            ("| yes |", "| maybe |", "`yes` or empty"),
            ("`id` `time`", "`id`, `time`", "each in backticks"),
            ("`id` `time`", "`id` time", "each in backticks"),
            ("| top | `main` | | |", "| top | `main` | |", "has not 4 cells"),
            ("| top | `main` |", "| top | `time` |", "stands in two rows"),
            ("`cosmic-text` `url`", "`url` `url`", "stands in two rows"),
            ("| `main` | `id` |", "| `main` | `mixer` |", "`mixer` stands in no row"),
            ("| `time` |\n", "| `times` |\n", "`times` stands in no row"),
        ];
        for (from, to, expected) in cases {
            assert!(DOCUMENT.contains(from), "{from} is not in the document");
            let error = Rules::parse(&DOCUMENT.replacen(from, to, 1)).expect_err(expected);
            assert!(error.contains(expected), "`{from}` as `{to}`: {error}");
        }
    }
}
