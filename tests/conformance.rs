//! Conformance as data: tables of cases from the RFCs' own examples, figures and rules.
//!
//! ```text
//! cargo test --release --features __internals --test conformance
//! ```
//!
//! Each `tests/conformance/*.table` belongs to one RFC, and can be checked against it line by line. A case
//! is one endpoint with one connection against a scripted peer, in virtual time:
//!
//! ```text
//! case RFC 9293 §3.5, Figure 6: the basic three-way handshake.
//! config iss=100 irs=300                       # see `settings.rs`
//! 0    connect                                 # what our application does
//! 0    > SYN 100                               # what we must send then
//! 100  < SYN,ACK 300 ack 101 win 8000 mss 1000 # what arrives from the peer
//! 100  > ACK 101 ack 301
//! 100  expect state ESTABLISHED cwnd 10000     # see `observe.rs`
//! ```
//!
//! - The first column is the time in milliseconds since the beginning, `+n` since the line before. Timers
//!   fire at their own times in between.
//! - A segment is its flags, its sequence number (`1`, with data `1:1001`, or `1:5001/1000` for five
//!   segments, of which only the last one has PSH and FIN) and fields: `ack`, which may be `1001-5001/1000`
//!   for five, `win`, `sack 1:2,5:6`, `ts value/echo`, and of a SYN `mss`, `wscale`, `sackok`; `nots`,
//!   `nomss`, `nowscale`, `nosackok` say that there is none. `ect` and `ce` are marks in the IP header,
//!   `unmarked` says that there is none.
//! - Numbers are absolute: the peer's begin at `irs`, ours at `iss`, both 0 unless configured. Our timestamp
//!   clock shows milliseconds since the beginning.
//! - Everything that leaves must be listed, at exactly its time, with all the fields that are listed equal;
//!   SACK blocks count as listed. `quiet` says that nothing has left up to its time.
//! - `<` lets segments arrive one after the other, each answered before the next; `<<` lets them arrive
//!   as one train of equal datagrams, which is answered at its end.
//! - `open active rtt=100` stands for a handshake begun at 0, `open passive` for the other role. The peer
//!   offers what `config` switches on.
//! - `pending` says why a case cannot pass yet; it fails once the case passes, so that nobody forgets it.
//! - Payload is a pattern of its position, which is checked on both sides.
#![cfg(feature = "__internals")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail as tests do"
)]

use std::fs;
use std::path::{Path, PathBuf};

#[path = "conformance/observe.rs"]
mod observe;
#[path = "conformance/parse.rs"]
mod parse;
#[path = "conformance/run.rs"]
mod run;
#[path = "conformance/settings.rs"]
mod settings;
#[path = "conformance/world.rs"]
mod world;

use parse::{Case, parse};
use run::{Failure, run};

/// Where the tables are.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn cases(table: &str) -> Vec<Case> {
    let text = fs::read_to_string(directory().join(table)).unwrap();
    parse(table, &text).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a case; returns what is to be told about it, if anything.
fn complaint(table: &str, case: &Case) -> Option<String> {
    match (&case.pending, run(case)) {
        (None, Ok(())) | (Some(_), Err(_)) => None,
        (None, Err(failure)) => {
            let Failure {
                number,
                what,
                trace,
            } = failure;
            Some(format!("{table}:{number}: {what}\n{trace}\n"))
        }
        (Some(why), Ok(())) => Some(format!(
            "{table}:{}: holds, so is no longer pending: {why}\n",
            case.number
        )),
    }
}

/// Runs every case of a table.
fn check(table: &str) {
    let cases = cases(table);
    assert!(!cases.is_empty(), "{table} is empty");
    let complaints: String = (cases.iter())
        .filter_map(|case| complaint(table, case))
        .collect();
    assert!(complaints.is_empty(), "\n{complaints}");
}

/// Makes one test of each table.
macro_rules! tables {
    ($($name:ident)*) => {
        const TABLES: &[&str] = &[$(concat!(stringify!($name), ".table")),*];

        $(
            #[test]
            fn $name() {
                check(concat!(stringify!($name), ".table"));
            }
        )*
    };
}

tables! {
    rfc2018 rfc2883 rfc3168 rfc5681 rfc5682 rfc5961 rfc6191 rfc6298 rfc6582 rfc6675 rfc7323 rfc8985 rfc9293
    rfc9293_close rfc9293_open rfc9293_text rfc9937
}

#[test]
fn every_table_is_run() {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name)
            .extension()
            .is_some_and(|extension| extension == "table")
        {
            found.push(name);
        }
    }
    found.sort();
    assert_eq!(found, TABLES);
}

/// The meta-tests: what the runner is worth.
mod meta {
    use std::time::Duration;

    use super::parse::{Action, Field, Spec};
    use super::*;
    use reliable_udp::Ecn;

    const HANDSHAKE: &str = "\
case RFC 9293 §3.5, Figure 6: the basic three-way handshake.
config iss=100 irs=300
0    connect
0    > SYN 100 mss 1000
50   < SYN,ACK 300 ack 101 mss 1000
50   > ACK 101 ack 301
50   expect state ESTABLISHED cwnd 10000
60   write 1500
60   > PSH,ACK 101:1601/1000 ack 301
";

    fn only(text: &str) -> Case {
        let mut cases = parse("meta", text).unwrap();
        assert_eq!(cases.len(), 1);
        cases.remove(0)
    }

    #[test]
    fn a_case_with_one_number_altered_fails_at_its_line() {
        run(&only(HANDSHAKE)).unwrap();
        // (what stands there, what is put there, line, what the failure says)
        let alterations = [
            ("0    > SYN 100", "0    > SYN 101", 4, "seq 101, is 100"),
            ("mss 1000\n50", "mss 1001\n50", 4, "mss"),
            (
                "50   > ACK 101 ack 301\n50 ",
                "50.001 > ACK 101 ack 301\n51 ",
                6,
                "time 50.001, is 50",
            ),
            (
                "> ACK 101 ack 301",
                "> ACK 101 ack 302",
                6,
                "ack 302, is 301",
            ),
            (
                "> ACK 101 ack 301",
                "> PSH,ACK 101 ack 301",
                6,
                "flags P., is .",
            ),
            (
                "50   > ACK 101 ack 301\n",
                "",
                6,
                "not listed: 50 > ACK 101 ack 301",
            ),
            (
                "ESTABLISHED",
                "SYN-SENT",
                7,
                "expected state SYN-SENT, is ESTABLISHED",
            ),
            ("cwnd 10000", "cwnd 9999", 7, "expected cwnd 9999, is 10000"),
            ("cwnd 10000", "cvnd 10000", 7, "unknown key `cvnd`"),
            ("101:1601/1000", "101:1601/500", 9, "length 500, is 1000"),
            ("101:1601/1000", "101:1701/1000", 9, "length 600, is 500"),
            ("101:1601/1000", "101:1101", 9, "flags P., is ."),
        ];
        for (old, new, line, what) in alterations {
            assert!(HANDSHAKE.contains(old), "{old}");
            let failure = run(&only(&HANDSHAKE.replacen(old, new, 1))).expect_err(new);
            assert_eq!(failure.number, line, "{new}: {}", failure.what);
            assert!(failure.what.contains(what), "{new}: {}", failure.what);
            assert!(
                failure.trace.contains("> ACK 101 ack 301"),
                "{new}: {}",
                failure.trace
            );
        }
    }

    #[test]
    fn a_pending_case_is_told_of_once_it_holds() {
        let pending = |text: &str| only(&text.replace("0    connect", "pending why\n0    connect"));
        let told = complaint("meta", &pending(HANDSHAKE)).unwrap();
        assert!(
            told.starts_with("meta:1: holds, so is no longer pending: why"),
            "{told}"
        );
        let wrong = HANDSHAKE.replace("cwnd 10000", "cwnd 1");
        assert_eq!(complaint("meta", &pending(&wrong)), None);
        let told = complaint("meta", &only(&wrong)).unwrap();
        assert!(
            told.starts_with("meta:7: expected cwnd 1, is 10000"),
            "{told}"
        );
    }

    #[test]
    fn a_segment_that_no_line_lists_fails_at_the_end() {
        let text = HANDSHAKE.replace("60   > PSH,ACK 101:1601/1000 ack 301\n", "");
        let failure = run(&only(&text)).unwrap_err();
        assert_eq!(failure.number, 8);
        assert!(
            failure.what.starts_with("not listed: 60 > ACK 101:1101"),
            "{}",
            failure.what
        );
    }

    #[test]
    fn what_is_wrong_in_a_table_is_told_with_its_line() {
        let texts = [
            ("0 connect", "meta:1: outside of a case"),
            ("case RFC 1 §1 no colon", "meta:1: a case needs"),
            ("case RFC 1 §1: empty", "meta:1: a case without lines"),
            (
                "case RFC 1 §1: x\n0 conect",
                "meta:2: unknown action `conect`",
            ),
            (
                "case RFC 1 §1: x\nconnect",
                "meta:2: a line needs a time and an action",
            ),
            (
                "case RFC 1 §1: x\n0 connect now",
                "meta:2: `connect` takes no argument",
            ),
            (
                "case RFC 1 §1: x\n5 connect\n4 quiet",
                "meta:3: time runs backwards",
            ),
            (
                "case RFC 1 §1: x\n0.1234567 connect",
                "meta:2: `0.1234567` is finer",
            ),
            (
                "case RFC 1 §1: x\nconfig mms=1",
                "meta:2: unknown setting `mms`",
            ),
            ("case RFC 1 §1: x\nconfig mss=1\n0 connect", "meta:1: mss"),
            (
                "case RFC 1 §1: x\nconfig sack=yes",
                "meta:2: `yes` is neither `on` nor `off`",
            ),
            (
                "case RFC 1 §1: x\n0 connect\nconfig mss=99",
                "meta:3: `config` behind",
            ),
            (
                "case RFC 1 §1: x\nopen sideways rtt=1",
                "meta:2: `sideways` is neither",
            ),
            ("case RFC 1 §1: x\n0 > SIN 1", "meta:2: unknown flag `SIN`"),
            (
                "case RFC 1 §1: x\n0 > SYN",
                "meta:2: the sequence number is missing",
            ),
            (
                "case RFC 1 §1: x\n0 > ACK 1",
                "meta:2: `ack` and the flag ACK go together",
            ),
            (
                "case RFC 1 §1: x\n0 > SYN 1 ack 1",
                "meta:2: `ack` and the flag ACK go together",
            ),
            (
                "case RFC 1 §1: x\n0 > ACK 1 ack 1 wim 1",
                "meta:2: unknown field `wim`",
            ),
            (
                "case RFC 1 §1: x\n0 > ACK 1 ack 1 win",
                "meta:2: `win` needs a value",
            ),
            (
                "case RFC 1 §1: x\n0 > ACK 1 ack 1 win 65536",
                "meta:2: `65536` is no such number",
            ),
            (
                "case RFC 1 §1: x\n0 > ACK 1 ack 1 sack 1-2",
                "meta:2: `1-2` needs a `:`",
            ),
            (
                "case RFC 1 §1: x\n0 > ACK 2:1 ack 1",
                "meta:2: the range runs backwards",
            ),
            (
                "case RFC 1 §1: x\n0 > ACK 1:3/0 ack 1",
                "meta:2: a step of 0",
            ),
            (
                "case RFC 1 §1: x\n0 < ACK 1:4/1 ack 1-2/1",
                "meta:2: 3 segments and 2 ack",
            ),
            (
                "case RFC 1 §1: x\n0 < ACK 1 ack 1-2",
                "meta:2: a range of acknowledgments needs",
            ),
            (
                "case RFC 1 §1: x\n0 expect state",
                "meta:2: `expect` takes pairs",
            ),
        ];
        for (text, error) in texts {
            let found = parse("meta", text).expect_err(text);
            assert!(found.starts_with(error), "{text:?}: {found}");
        }
    }

    /// Every way in which a line can be wrong by one.
    fn alterations(action: &Action) -> Vec<Action> {
        match action {
            Action::Sends(specs) => {
                let alter = |change: &dyn Fn(&mut Spec)| {
                    let mut specs = specs.clone();
                    specs.last_mut().into_iter().for_each(change);
                    Action::Sends(specs)
                };
                let mut wrong = vec![
                    alter(&|spec| spec.seq = spec.seq.wrapping_add(1)),
                    alter(&|spec| spec.len += 1),
                    alter(&|spec| spec.ack = spec.ack.map(|ack| ack.wrapping_add(1))),
                    alter(&|spec| spec.window = spec.window.map(|window| window ^ 1)),
                    alter(&|spec| spec.sack.push((1, 2))),
                    alter(&|spec| {
                        spec.mark = match spec.mark {
                            Field::Unlisted => Field::Unlisted,
                            Field::Absent => Field::Is(Ecn::Ect0),
                            Field::Is(_) => Field::Absent,
                        }
                    }),
                    alter(&|spec| spec.sack.iter_mut().for_each(|block| block.1 += 1)),
                    Action::Sends(specs[1..].to_vec()),
                    Action::Sends([&specs[..], &specs[..]].concat()),
                ];
                wrong.retain(|wrong| wrong != action);
                wrong
            }
            Action::Expect(pairs) => (0..pairs.len())
                .map(|index| {
                    let mut pairs = pairs.clone();
                    pairs[index].1.push('1');
                    Action::Expect(pairs)
                })
                .collect(),
            Action::Read(len) => vec![Action::Read(len + 1)],
            _ => Vec::new(),
        }
    }

    #[test]
    fn no_line_of_any_table_can_be_altered_and_still_hold() {
        let mut altered = 0;
        let all = TABLES.iter().flat_map(|table| cases(table));
        for case in all.filter(|case| case.pending.is_none()) {
            for (index, line) in case.lines.iter().enumerate() {
                let mut wrong = alterations(&line.action);
                let mut late = case.clone();
                if matches!(line.action, Action::Sends(_)) {
                    late.lines[index].at += Duration::from_micros(1);
                    assert!(run(&late).is_err(), "{}: late: {}", case.title, line.text);
                    altered += 1;
                }
                for action in wrong.drain(..) {
                    let mut case = case.clone();
                    case.lines[index].action = action;
                    assert!(run(&case).is_err(), "{}: {}", case.title, line.text);
                    altered += 1;
                }
            }
        }
        assert!(altered > 5_000, "only {altered} alterations");
    }
}
