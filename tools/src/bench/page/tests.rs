use super::*;

/// Every tag that is opened is closed, in order.
fn assert_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    for piece in page.split('<').skip(1) {
        let tag = piece.split('>').next().expect("a tag ends");
        if tag.starts_with('!') {
            continue;
        }
        let name = tag
            .trim_start_matches('/')
            .split([' ', '/'])
            .next()
            .expect("a name");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "in {open:?}");
        } else if !tag.ends_with('/') && !["meta", "br"].contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

fn figure(number: f64) -> (f64, String) {
    (number, format!("{number} k"))
}

#[test]
fn peers_stand_beside_each_other_with_the_best_marked() {
    let engines: Vec<Peer> = ["siltstone", "a<b", "c"]
        .map(|name| Peer {
            name: name.to_owned(),
            settings: "cache & filter".to_owned(),
        })
        .to_vec();
    let line = |label: &str, is_more_better| PeerLine {
        label: label.to_owned(),
        figures: vec![Some(figure(1.0)), Some(figure(2.0)), None],
        is_more_better,
        ratio: Some(0.5),
    };
    let lines = [line("fillseq", true), line("compact, s", false)];
    let page = peers("lead", "- one\n- two\n", &engines, &lines);
    assert_well_formed(&page);
    assert!(page.contains("<td class=\"best\">2 k</td>"), "{page}");
    assert!(
        page.contains("<td class=\"best\">1 k</td>"),
        "less is better: {page}"
    );
    assert!(page.contains("a&lt;b") && page.contains("cache &amp; filter"));
    assert!(page.contains(">one</li>") && page.contains(">two</li>"));
    for part in ["http:", "https:", "<script", "url(", "@import"] {
        assert!(!page.contains(part), "nothing is loaded: {part}");
    }
}

#[test]
fn axes_end_at_round_numbers() {
    for (number, top) in [
        (0.0, 1.0),
        (1.0, 1.0),
        (1.1, 2.0),
        (480.0, 500.0),
        (7e5, 1e6),
    ] {
        let found = chart::round_up(number);
        assert!((found / top - 1.0).abs() < 1e-9, "{number}: {found}");
    }
}

#[test]
fn figures_are_short() {
    assert_eq!(
        [rate(12.0), rate(365_718.0), rate(2e6)],
        ["12 /s", "366 k/s", "2.00 M/s"]
    );
    let shown = [1.25, 250.0, 2500.0, 25_000.0, 2.5e6].map(micros);
    assert_eq!(shown, ["1.2 us", "250 us", "2.5 ms", "25 ms", "2.5 s"]);
}
