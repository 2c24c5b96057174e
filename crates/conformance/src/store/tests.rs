//! No duty is forgotten by the macro.

const SUITE: &str = include_str!("../store.rs");

const DUTIES: [(&str, &str); 13] = [
    ("atomicity", include_str!("atomicity.rs")),
    ("repetition", include_str!("repetition.rs")),
    ("conditions", include_str!("conditions.rs")),
    ("order", include_str!("order.rs")),
    ("clock", include_str!("clock.rs")),
    ("query", include_str!("query.rs")),
    ("state", include_str!("state.rs")),
    ("tenants", include_str!("tenants.rs")),
    ("progress", include_str!("progress.rs")),
    ("lifetime", include_str!("lifetime.rs")),
    ("snapshots", include_str!("snapshots.rs")),
    ("survey", include_str!("survey.rs")),
    ("model", include_str!("model.rs")),
];

#[test]
fn every_duty_has_a_test_in_the_suite() {
    let public_modules = SUITE.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    for module in public_modules {
        assert!(DUTIES.iter().any(|(name, _)| *name == module), "{module} is not looked through here");
    }
    for (module, text) in DUTIES {
        let (_, listed) = SUITE.split_once(&format!("{module}:\n")).expect("the suite lists the module");
        let (listed, _) = listed.split_once(");").expect("the list ends");
        let listed: Vec<&str> = listed.split_whitespace().collect();
        let duties = text.lines().filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next());
        assert_eq!(listed, duties.collect::<Vec<_>>(), "in {module}");
    }
}
