//! The table of cases.

use std::time::Duration;

use super::case::{Case, Opener, Path, Scenario};
use super::namespace::Offers;
use super::script::{Ending, Read, Script, Side, Write};
use super::shim::Kind;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// The kernel's congestion controllers.
pub const CONGESTION: [&str; 3] = ["cubic", "reno", "bbr"];
const EITHER: [Opener; 2] = [Opener::One(Side::We), Opener::One(Side::Kernel)];
/// Nothing, and everything at once.
const BEST_AND_WORST: [Path; 2] = [Path::Clean, Path::Impaired];

/// Every scenario with every opener, path and congestion controller.
fn product(scenarios: &[Scenario], openers: &[Opener], paths: &[Path]) -> Vec<Case> {
    let mut cases = Vec::new();
    for scenario in scenarios {
        for &opener in openers {
            for &path in paths {
                for congestion in CONGESTION {
                    cases.push(Case {
                        scenario: scenario.clone(),
                        opener,
                        path,
                        congestion,
                        offers: Offers::Everything,
                    });
                }
            }
        }
    }
    cases
}

/// One side sends `len` bytes and the other one ends after it.
fn one_way(sender: Side, len: usize) -> [Script; 2] {
    let sending = Script::new(&[Write::Send(len), Write::Finish], &[Read::ToEnd(0)]);
    let receiving = Script::new(&[Write::AfterReading, Write::Finish], &[Read::ToEnd(len)]);
    match sender {
        Side::We => [sending, receiving],
        Side::Kernel => [receiving, sending],
    }
}

/// Both send at the same time.
fn both_ways(len: usize) -> [Script; 2] {
    let script = Script::new(&[Write::Send(len), Write::Finish], &[Read::ToEnd(len)]);
    [script.clone(), script]
}

/// One side ends its stream after `len` bytes, then the other one sends `answer` bytes.
fn half_closed(first: Side, len: usize, answer: usize) -> [Script; 2] {
    let first_half = Script::new(&[Write::Send(len), Write::Finish], &[Read::ToEnd(answer)]);
    let second_half = Script::new(
        &[Write::AfterReading, Write::Send(answer), Write::Finish],
        &[Read::ToEnd(len)],
    );
    match first {
        Side::We => [first_half, second_half],
        Side::Kernel => [second_half, first_half],
    }
}

/// Which sides end in TIME-WAIT if `first` ends first.
fn time_wait(first: Side) -> [bool; 2] {
    [first == Side::We, first == Side::Kernel]
}

fn named(name: &'static str, [ours, kernel]: [Script; 2]) -> Scenario {
    Scenario::new(name, ours, kernel)
}

pub fn bulk() -> Vec<Case> {
    let scenarios = [
        named("bulk both ways", both_ways(MIB)),
        named("bulk to the kernel", one_way(Side::We, MIB)),
        named("bulk from the kernel", one_way(Side::Kernel, MIB)),
    ];
    let paths = [
        Path::Clean,
        Path::Lossy,
        Path::Reordering,
        Path::Duplicating,
        Path::Impaired,
    ];
    product(&scenarios, &EITHER, &paths)
}

/// The same with marks on the way.
pub fn marks() -> Vec<Case> {
    let scenarios = [
        named("bulk both ways", both_ways(MIB)),
        named("bulk to the kernel", one_way(Side::We, MIB)),
        named("bulk from the kernel", one_way(Side::Kernel, MIB)),
    ];
    product(&scenarios, &EITHER, &[Path::Marking])
}

pub fn half_close() -> Vec<Case> {
    let scenario = |name, first| Scenario {
        time_wait: Some(time_wait(first)),
        ..named(name, half_closed(first, 64 * KIB, 512 * KIB))
    };
    let scenarios = [
        scenario("we half-close", Side::We),
        scenario("kernel half-closes", Side::Kernel),
    ];
    product(&scenarios, &EITHER, &BEST_AND_WORST)
}

pub fn reset() -> Vec<Case> {
    let victim = Script {
        ending: Ending::Reset,
        ..Script::new(&[Write::UntilReset], &[Read::UntilReset])
    };
    let breaking = Script {
        ending: Ending::Abort,
        ..Script::new(&[], &[Read::Take(300 * KIB)])
    };
    let scenario = |name, scripts| Scenario {
        time_wait: Some([false; 2]),
        ..named(name, scripts)
    };
    let scenarios = [
        scenario("we abort", [breaking.clone(), victim.clone()]),
        scenario("kernel aborts", [victim, breaking]),
    ];
    product(&scenarios, &EITHER, &BEST_AND_WORST)
}

pub fn zero_window() -> Vec<Case> {
    const LEN: usize = 512 * KIB;
    let scenario = |name, receiver: Side| {
        let mut scripts = one_way(receiver.other(), LEN);
        let script = &mut scripts[receiver as usize];
        script.receive_buffer = Some(64 * KIB);
        // Once the sender is at it, long enough for some probes, which go at 200 ms, 400 ms and so on.
        let pause = Read::Pause(Duration::from_millis(900));
        script.reader.splice(..0, [Read::Take(KIB), pause]);
        Scenario {
            closed_window: Some(receiver),
            time_wait: Some(time_wait(receiver.other())),
            ..named(name, scripts)
        }
    };
    let scenarios = [
        scenario("our window closes", Side::We),
        scenario("kernel's window closes", Side::Kernel),
    ];
    product(&scenarios, &EITHER, &BEST_AND_WORST)
}

pub fn simultaneous_open() -> Vec<Case> {
    let scenarios = [Scenario {
        crossing: Some(Kind::Syn),
        ..named("simultaneous open", both_ways(256 * KIB))
    }];
    product(&scenarios, &[Opener::Both], &BEST_AND_WORST)
}

pub fn close() -> Vec<Case> {
    let one_first = |name, first, len| Scenario {
        time_wait: Some(time_wait(first)),
        ..named(name, half_closed(first, len, len))
    };
    let scenarios = [
        one_first("we close first", Side::We, 8 * KIB),
        one_first("kernel closes first", Side::Kernel, 8 * KIB),
        one_first("we close first, nothing sent", Side::We, 0),
        one_first("kernel closes first, nothing sent", Side::Kernel, 0),
        Scenario {
            // Each FIN is on its way when the other one arrives: both go through CLOSING.
            crossing: Some(Kind::Fin),
            time_wait: Some([true; 2]),
            ..named("both close at once", both_ways(8 * KIB))
        },
        named("both close, data in flight", both_ways(256 * KIB)),
    ];
    product(&scenarios, &EITHER, &BEST_AND_WORST)
}

pub fn lost_by_ordinal() -> Vec<Case> {
    let scenarios = [named("short both ways", both_ways(20 * KIB))];
    let mut cases = Vec::new();
    for side in [Side::We, Side::Kernel] {
        let paths = [
            Path::Without(Kind::Syn, side),
            Path::Without(Kind::SynAck, side.other()),
            Path::Without(Kind::PureAck, side),
            Path::Without(Kind::Data, Side::We),
            Path::Without(Kind::Data, Side::Kernel),
            Path::WithoutBoth(Kind::Data),
            Path::Without(Kind::Fin, Side::We),
            Path::Without(Kind::Fin, Side::Kernel),
            Path::WithoutBoth(Kind::Fin),
        ];
        cases.extend(product(&scenarios, &[Opener::One(side)], &paths));
    }
    let both = [Scenario {
        crossing: Some(Kind::Syn),
        ..named("simultaneous open", both_ways(20 * KIB))
    }];
    let paths = [
        Path::Without(Kind::Syn, Side::We),
        Path::Without(Kind::Syn, Side::Kernel),
        Path::WithoutBoth(Kind::Syn),
        Path::Without(Kind::SynAck, Side::We),
        Path::Without(Kind::SynAck, Side::Kernel),
        Path::WithoutBoth(Kind::SynAck),
    ];
    cases.extend(product(&both, &[Opener::Both], &paths));
    cases
}

/// What the kernel leaves out of its SYN is done without.
pub fn offers() -> Vec<Case> {
    let scenarios = [named("bulk both ways", both_ways(MIB))];
    let offers = [
        Offers::NoSack,
        Offers::NoTimestamps,
        Offers::NoWindowScaling,
    ];
    let mut cases = Vec::new();
    for offers in offers {
        let plain = product(&scenarios, &EITHER, &BEST_AND_WORST);
        cases.extend(plain.into_iter().map(|case| Case { offers, ..case }));
    }
    cases
}
