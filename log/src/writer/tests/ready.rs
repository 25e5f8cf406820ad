//! Pages of the live segment that are made ready before anything is stored in them.

use super::*;

#[test]
fn a_segment_whose_pages_are_being_made_ready_is_not_cut() {
    let fs = sim(1);
    let site = Site {
        append: LogAppend::Mapped,
        ..Site::new(fs.clone())
    };
    let log = site.start();
    let mut feeder = Feeder::new();
    feeder.append_many(&log, 3);
    let path = site.path(log.live_number());
    let len = || fs.contents(&path).expect("there").len();
    let ahead = log.state.lock().live.writer.ahead().expect("mapped");
    let before = len();
    log.rotate().expect("rotated");
    while log.maintain().expect("maintained") {}
    assert_eq!(log.sealed().len(), 1);
    assert_eq!(len(), before, "it is mapped");
    drop(ahead);
    // The next one is.
    feeder.append_many(&log, 3);
    let path = site.path(log.live_number());
    let before = fs.contents(&path).expect("there").len();
    log.rotate().expect("rotated");
    while log.maintain().expect("maintained") {}
    assert!(fs.contents(&path).expect("there").len() < before);
    log.close().expect("closed");
    assert_eq!(recovered(&fs), feeder.appended);
}

#[test]
fn pages_are_made_ready_for_many_small_syncs_at_once() {
    let site = Site {
        segment_bytes: 8 << 20,
        // Where nothing is mapped, each page is noted down on its own.
        append: LogAppend::Mapped,
        ..Site::new(sim(1))
    };
    let log = site.start();
    let mut first_seq = 1;
    let mut append = |bytes: usize| {
        let appended = log.append(RecordKind::Batch, seq(first_seq), 1, &vec![7; bytes]);
        first_seq += 1;
        appended.expect("appended");
        log.sync().expect("synced");
        while log.maintain().expect("maintained") {}
        let state = log.state.lock();
        (state.live.writer.bytes(), state.populated_upto)
    };
    let (_, ready_upto) = append(100);
    assert_eq!(
        ready_upto, 0,
        "who syncs every few records is not known yet"
    );
    let (mut bytes, mut upto) = (0, Vec::new());
    while bytes < 300 << 10 {
        let (end, ready_upto) = append(1500);
        assert!(end <= ready_upto, "{end}");
        upto.push(ready_upto >> 10);
        bytes = end;
    }
    upto.dedup();
    // As far as space was reserved by then, and at most 64 KiB behind the page that is begun.
    assert_eq!(upto, [8, 16, 32, 64, 128, 196, 264, 332]);
    // A record that takes pages of its own leaves nothing to be borne once for many.
    append(90 << 10);
    let (end, ready_upto) = append(5000);
    assert!(ready_upto < end);
}
