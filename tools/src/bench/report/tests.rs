use super::*;

const fn written(payload: u64) -> Charge {
    Charge {
        payload,
        pages: payload.next_multiple_of(4096),
    }
}

fn sample() -> Amplification {
    Amplification {
        totals: Totals {
            database_count: 1,
            user_bytes: 100 << 20,
            user_write_count: 1000,
            log: written(120 << 20),
            log_sync_count: 2,
            flush: written(80 << 20),
            compaction_by_level: vec![written(0), written(50 << 20), written(0)],
            arrived_by_level: vec![0, 20 << 20, 0],
            resident_by_level: vec![0, 20 << 20, 0],
            flush_count: 8,
            manifest: written(1000),
            get_count: 10,
            get_hit_count: 5,
            tables_considered: 110,
            index_blocks: 11,
            data_blocks: 12,
            filter_negatives: 99,
            filter_false_positives: 1,
            seek_count: 4,
            seek_run_count: 14,
            seek_passed_run_count: 2,
            scan_entry_count: 400,
            scan_index_blocks: 9,
            scan_data_blocks: 20,
            scan_cache_hits: 7,
            scan_loaded_blocks: 3,
            scan_bytes_read: 82_000,
            ..Totals::default()
        },
        device: Some(DeviceBytes {
            read: 0,
            written: 251 << 20,
            cancelled: 0,
        }),
        space: Some(Space {
            levels: vec![LevelRow {
                level: 1,
                table_count: 3,
                bytes: 90 << 20,
                entry_count: 900,
                tombstone_count: 9,
                raw_bytes: 85 << 20,
                score: 0.5,
                written_bytes: 50 << 20,
                arrived_bytes: 20 << 20,
                get_hit_count: 5,
                tables_searched: 6,
            }],
            log_bytes: 10 << 20,
            user_bytes: 100 << 20,
            get_count: 10,
            live: LiveBytes::Counted(50 << 20),
        }),
        returned: Returned::default(),
        keyspaces: Vec::new(),
        tuning: Tuning::default(),
    }
}

#[test]
fn causes_add_up_to_the_total() {
    let amplification = sample();
    assert_eq!(amplification.payload_bytes(), (250 << 20) + 1000);
    let write = amplification.write_amplification().expect("bytes came in");
    assert!((write - 2.5).abs() < 0.001);
    let excess = amplification
        .device_excess_percent(250 << 20)
        .expect("counted");
    assert!((excess - 0.4).abs() < 0.001);
}

#[test]
fn a_level_that_nothing_was_written_to_has_no_row() {
    let rows = sample().write_rows();
    let causes: Vec<_> = rows.iter().map(|row| &*row.cause).collect();
    assert_eq!(
        causes,
        ["log", "flush to L0", "compaction to L1", "MANIFEST"]
    );
    assert_eq!(rows[3].charge.pages, 4096);
}

#[test]
fn the_explanation_says_who_counts_more_and_why() {
    let mut amplification = sample();
    assert!(amplification.explanation()[0].contains("payload and system agree"));
    amplification.device = Some(DeviceBytes {
        written: 400 << 20,
        cancelled: 5,
        read: 0,
    });
    let text = amplification.explanation().join("; ");
    assert!(
        text.contains("counts more") && text.contains("cancelled"),
        "{text}"
    );
    amplification.device = Some(DeviceBytes::default());
    assert!(amplification.explanation().join("; ").contains("tmpfs"));
    amplification.device = None;
    assert!(
        amplification
            .explanation()
            .join("; ")
            .contains("no account")
    );
}

#[test]
fn the_report_fits_its_width() {
    let text = sample().to_string();
    for line in text.lines() {
        assert!(line.len() <= 100, "{line}");
    }
    for part in [
        "write amplification 2.50",
        "space amplification 2.00",
        "L1",
        "     0.50     1.50    0.50     0.60",
        "1.0 %",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn scans_have_a_part_of_their_own_if_there_were_any() {
    let mut amplification = sample();
    amplification.returned = Returned {
        block_bytes: 82_000,
        bytes: 40_000,
    };
    let text = amplification.to_string();
    for part in [
        "Read, of 4 scans",
        "per scan: 3.50 sorted runs, of these 0.50 passed over by their bounds",
        "per scan: 100.00 entries, 2.25 index blocks, 5.00 data blocks, 20500.00 bytes of them",
        "data blocks: 2.50 from mappings, 1.75 from the cache, 0.75 read or expanded",
        "2.05 bytes of blocks were touched for each byte returned",
        "Scans: a cursor that was sent to a key looked into 3.00 sorted runs",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let scan = &json::to_json(&amplification)["scan"];
    assert_eq!(scan["runs_passed_by_bounds"], 2);
    assert_eq!(scan["data_blocks_by_source"]["mapped"], 10);
    amplification.totals.seek_count = 0;
    let text = amplification.to_string();
    assert!(!text.to_lowercase().contains("scans"), "{text}");
}

#[test]
fn the_document_has_the_same_numbers() {
    let value = json::to_json(&sample());
    assert_eq!(value["write"]["payload_bytes"], (250 << 20) + 1000);
    assert_eq!(value["space"]["live_bytes_estimated"], false);
    assert_eq!(value["space"]["levels"][0]["tombstones"], 9);
}
