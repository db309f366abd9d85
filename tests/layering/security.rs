//! Reads `docs/security.md`: every test that it names exists.

use super::sources_of_all_tests;

/// The names in the last column of the tables, each between backticks.
fn named(document: &str) -> impl Iterator<Item = &str> {
    let rows = document.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let cells = rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2))
}

#[test]
fn every_test_in_the_tables_of_the_security_document_exists() {
    let document = include_str!("../../docs/security.md");
    let names: Vec<&str> = named(document).collect();
    assert!(names.len() > 30, "the tables cannot be read: {names:?}");
    let sources = sources_of_all_tests();
    let missing: Vec<&&str> =
        names.iter().filter(|name| !sources.iter().any(|text| text.contains(&format!("fn {name}(")))).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that do not exist: {missing:?}");
}
