//! The example `congestion_plot`: its arguments, what it sees on short runs, and the pictures it draws.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests may"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::Parser;

#[path = "../examples/congestion_plot/mod.rs"]
mod congestion_plot;

use congestion_plot::args::{Args, LTE_TRACE};
use congestion_plot::episodes::{self, Shape};
use congestion_plot::run::{Flow, Record};
use congestion_plot::{csv, picture, records, synthetic};

const PICTURE: &str = "docs/congestion.svg";

fn args(line: &str) -> Args {
    Args::try_parse_from(format!("congestion_plot {line}").split_whitespace()).unwrap()
}

fn flow(line: &str) -> Flow {
    records(&args(line)).unwrap().remove(0).flows.remove(0)
}

/// Returns the arguments of the command by which README.md makes its picture.
fn readme_arguments() -> String {
    let readme = fs::read_to_string("README.md")
        .unwrap()
        .replace("\\\n", " ");
    let of_picture =
        |line: &&str| line.contains("--example congestion_plot") && line.contains(PICTURE);
    let line = readme.lines().find(of_picture).unwrap();
    line.split_once(" -- ").unwrap().1.to_owned()
}

/// Returns the colours of the lines and areas in a picture, after checking that it is well-formed.
fn colours(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap();
    assert_eq!(document.root_element().tag_name().name(), "svg");
    let mut colours = Vec::new();
    for node in document.descendants() {
        let colour = match node.tag_name().name() {
            "polyline" => node.attribute("stroke"),
            "polygon" => node.attribute("fill"),
            _ => None,
        };
        colours.extend(colour.map(str::to_owned));
    }
    colours
}

fn texts(svg: &str) -> String {
    let document = roxmltree::Document::parse(svg).unwrap();
    let texts = document.descendants().filter_map(|node| node.text());
    texts.map(str::trim).collect::<Vec<_>>().join("|")
}

#[test]
fn the_picture_of_the_readme_shows_what_the_readme_says() {
    let args = args(&readme_arguments());
    let scene = args.scene().unwrap();
    let seen = records(&args).unwrap();
    let [flow] = seen[0].flows.as_slice() else {
        panic!("one controller alone");
    };
    assert_eq!(flow.failure, None);

    // Slow start from the beginning, and losses that end it or come later.
    let slow_start = episodes::phases(flow, "slow start")[0];
    assert!(
        slow_start.from < Duration::from_millis(500),
        "{slow_start:?}"
    );
    let last = flow.samples.last().unwrap();
    assert!(last.lost > 0 && last.retransmitted > 0, "{last:?}");

    // Slow start ends without a loss; fast recoveries, each with its reduction, and no timeout.
    let recoveries = episodes::recoveries(flow);
    assert!(recoveries.len() >= 2, "{recoveries:?}");
    assert_eq!(last.timeouts, 0);
    assert!(
        recoveries[0].from > Duration::from_secs(3),
        "{recoveries:?}"
    );
    for span in &recoveries {
        let at = |time| flow.samples.iter().rfind(|s| s.at <= time).unwrap().cwnd;
        let before = at(span.from.saturating_sub(scene.sample * 2));
        let (low, high) = (before * 65 / 100, before * 75 / 100);
        assert!((low..=high).contains(&at(span.until)), "{span:?}");
    }

    // Both halves of the curve, the second behind the first.
    let curves = episodes::curves(flow);
    let both = curves.windows(2).any(|pair| {
        (pair[0].1, pair[1].1) == (Shape::Concave, Shape::Convex)
            && pair[0].0.until == pair[1].0.from
    });
    assert!(both, "{curves:?}");

    // All series and labels are there, the same ones every time.
    let svg = picture::draw(&scene, &seen).unwrap();
    assert_eq!(records(&args).unwrap(), seen);
    for colour in [
        "#1D5FBF", "#E07B00", "#949EAC", "#7A33B8", "#15803D", "#925416", "#CD1C28",
    ] {
        assert!(colours(&svg).iter().any(|c| c == colour), "{colour}");
    }
    let texts = texts(&svg);
    for label in [
        "CUBIC",
        "cwnd",
        "ssthresh",
        "fast recovery",
        "concave",
        "convex",
        "time, s",
    ] {
        assert!(texts.contains(label), "{label}: {texts}");
    }
}

#[test]
fn the_committed_picture_is_small_and_well_formed() {
    let svg = fs::read_to_string(PICTURE).unwrap();
    assert!(svg.len() < 60_000, "{} bytes", svg.len());
    assert!(colours(&svg).len() > 5);
    assert!(texts(&svg).contains("CUBIC"));
    assert!(fs::read_to_string("README.md").unwrap().contains(PICTURE));
}

#[test]
fn the_same_arguments_give_the_same_picture_and_table() {
    let directory = tempfile::tempdir().unwrap();
    let files = ["a.svg", "a.csv", "b.svg", "b.csv"].map(|name| directory.path().join(name));
    let run = |svg: &Path, csv: &Path| {
        let line = format!(
            "--congestion newreno,bbr --together --stagger 1s --path lte --loss 0.5% --length 4s --blackout 2s+300ms \
             --svg {} --csv {}",
            svg.display(),
            csv.display()
        );
        congestion_plot::execute(&args(&line)).unwrap()
    };
    let lines = run(&files[0], &files[1]);
    assert!(
        lines[1].starts_with("NewReno 1: ") && lines[2].starts_with("BBR 2: "),
        "{lines:?}"
    );
    run(&files[2], &files[3]);
    let [svg, csv, svg_again, csv_again] = files.map(|file| fs::read_to_string(file).unwrap());
    assert_eq!(svg, svg_again);
    assert_eq!(csv, csv_again);
    colours(&svg);
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().all(|line| line.split(',').count() == columns));
}

#[test]
fn flows_together_share_the_bottleneck_and_its_queue() {
    let args = args("--congestion cubic,newreno --together --length 5s");
    let scene = args.scene().unwrap();
    let Record { flows, queue } = records(&args).unwrap().remove(0);
    let arrived: Vec<u64> = flows
        .iter()
        .map(|f| f.samples.last().unwrap().arrived)
        .collect();
    // 2,500,000 bytes/s for 5 s, headers included.
    assert!(
        arrived.iter().all(|bytes| *bytes > 1_000_000),
        "{arrived:?}"
    );
    assert!(
        (9_000_000..12_500_000).contains(&arrived.iter().sum::<u64>()),
        "{arrived:?}"
    );
    let limit = scene.queue_bytes().unwrap();
    assert!(queue.iter().all(|look| look.queue.bytes <= limit));
    assert!(queue.iter().any(|look| look.queue.bytes > limit / 2));
    let table = csv::table(&[Record { flows, queue }]);
    assert!(table.contains("NewReno 2"));
}

#[test]
fn a_blackout_ends_in_a_timeout_and_slow_start() {
    let flow = flow("--rate 5mbit --length 5s --blackout 2s+1s");
    let timeouts = episodes::steps(&flow.samples, |sample| sample.timeouts);
    let ms = Duration::from_millis;
    assert!(
        timeouts
            .iter()
            .any(|(at, _)| (ms(2_200)..ms(3_100)).contains(at)),
        "{timeouts:?}"
    );
    let slow_starts = episodes::phases(&flow, "slow start");
    assert!(
        slow_starts.iter().any(|span| span.from > ms(2_000)),
        "{slow_starts:?}"
    );
}

#[test]
fn bbr_starts_up_and_probes_for_the_round_trip_time() {
    let flow = flow("--congestion bbr --length 12s");
    let first = episodes::phases(&flow, "Startup")[0];
    assert!(first.from < Duration::from_millis(500), "{first:?}");
    assert!(!episodes::phases(&flow, "ProbeRTT").is_empty());
    assert!(flow.samples.iter().all(|s| s.phase != "slow start"));
}

#[test]
fn the_shipped_trace_is_what_its_generator_makes() {
    assert!(
        LTE_TRACE == synthetic::lte(),
        "make it again with --write-trace"
    );
}

#[test]
fn wrong_arguments_are_explained() {
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("bad.trace");
    fs::write(&bad, "1\n5\n3\n").unwrap();
    let bad = format!("--trace {}", bad.display());
    for (line, expected) in [
        ("--congestion vegas", "possible values: newreno, cubic, bbr"),
        ("--rate 20", "such as 400kbit, 20mbit or 1gbit"),
        ("--rtt 50", "such as 50ms"),
        ("--queue 1.5", "such as 1.5bdp"),
        ("--loss 100%", "below 1"),
        ("--path moon", "clean"),
        ("--stagger 5s", "--together"),
        ("--blackout 5s", "START+LENGTH"),
        ("--length 1ms", "--length has to be from 100ms"),
        ("--sample 10us", "--sample has to be from 1ms"),
        ("--interval 1us", "--interval has to be from"),
        ("--rtt 121min", "delay is"),
        ("--trace nowhere.trace", "cannot read nowhere.trace"),
        (&bad, "line 3: 3 ms is earlier than the line above it"),
    ] {
        let words = format!("congestion_plot {line}");
        let message = match Args::try_parse_from(words.split_whitespace()) {
            Err(error) => error.to_string(),
            Ok(args) => args.scene().err().unwrap().to_string(),
        };
        assert!(message.contains(expected), "{line}: {message}");
    }
}
