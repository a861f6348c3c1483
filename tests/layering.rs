//! Reads the sources and fails when a layer names what it must not know.

use std::fs;
use std::path::{Path, PathBuf};

/// A part of the tree, and the words that must not stand in its code.
struct Rule {
    places: &'static [&'static str],
    forbidden: &'static [&'static str],
    why: &'static str,
}

const CORE: &[&str] = &[
    "wire",
    "congestion",
    "connection",
    "ecn.rs",
    "endpoint",
    "tap.rs",
    "timestamp.rs",
];

const RULES: &[Rule] = &[
    Rule {
        places: CORE,
        forbidden: &[
            "tokio::",
            "std::thread",
            "Mutex",
            "RwLock",
            "UdpSocket",
            "SystemTime",
            "getrandom",
        ],
        why: "the core is sans-IO: no runtime, threads, locks, sockets or randomness of its own",
    },
    Rule {
        places: CORE,
        forbidden: &["Instant"],
        why: "time is an argument of type Timestamp",
    },
    Rule {
        places: &["wire", "congestion", "connection"],
        forbidden: &["std::net", "SocketAddr", "IpAddr"],
        why: "a connection does not know addresses; the endpoint does",
    },
    Rule {
        places: &[
            "wire",
            "congestion",
            "ecn.rs",
            "error.rs",
            "tap.rs",
            "timestamp.rs",
        ],
        forbidden: &[
            "crate::connection",
            "crate::endpoint",
            "crate::driver",
            "crate::socket",
            "crate::capture",
        ],
        why: "the ground floor imports nothing above it",
    },
    Rule {
        places: &["connection"],
        forbidden: &[
            "crate::endpoint",
            "crate::driver",
            "crate::socket",
            "crate::sim",
        ],
        why: "imports point down",
    },
    Rule {
        places: &["endpoint"],
        forbidden: &[
            "crate::driver",
            "crate::socket",
            "crate::listener",
            "crate::capture",
        ],
        why: "imports point down",
    },
    Rule {
        places: &["driver"],
        forbidden: &[
            "crate::socket",
            "crate::listener",
            "crate::copy",
            "crate::capture",
        ],
        why: "imports point down",
    },
    Rule {
        places: &["capture"],
        forbidden: &[
            "tokio::",
            "Instant",
            "crate::connection",
            "crate::endpoint",
            "crate::driver",
            "crate::socket",
            "crate::listener",
        ],
        why: "a capture knows taps and segments, and writes from a thread of its own",
    },
    Rule {
        places: &["connection/sender"],
        forbidden: &["connection::receiver"],
        why: "sender and receiver do not know each other",
    },
    Rule {
        places: &["connection/receiver"],
        forbidden: &["connection::sender", "connection::recovery", "congestion"],
        why: "sender and receiver do not know each other",
    },
    Rule {
        places: &["connection/recovery"],
        forbidden: &[
            "connection::sender",
            "connection::receiver",
            "connection::state",
        ],
        why: "loss recovery stands below the sender",
    },
    Rule {
        places: &["copy"],
        forbidden: &[
            "crate::connection",
            "crate::endpoint",
            "crate::driver",
            "crate::wire",
        ],
        why: "the file copy uses the public socket only",
    },
    Rule {
        places: &["tls"],
        forbidden: &[
            "crate::connection",
            "crate::copy",
            "crate::driver",
            "crate::endpoint",
            "crate::socket",
            "crate::wire",
        ],
        why: "TLS knows streams only",
    },
    Rule {
        places: &["copy"],
        forbidden: &["crate::tls"],
        why: "a copy runs over any stream, and is told the channel's binding",
    },
];

#[test]
fn no_layer_names_what_it_must_not_know() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    let mut offences = Vec::new();
    for rule in RULES {
        for place in rule.places {
            for file in sources(&root.join(place)) {
                seen += 1;
                let text = fs::read_to_string(&file).unwrap();
                for (number, line) in code_lines(&text) {
                    for word in rule.forbidden.iter().filter(|word| names(line, word)) {
                        let path = file.strip_prefix(&root).unwrap().display().to_string();
                        offences.push(format!("{path}:{number}: `{word}`: {}", rule.why));
                    }
                }
            }
        }
    }
    assert!(
        seen > 50,
        "only {seen} files read: have the directories moved?"
    );
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

/// All Rust files below `place`, tests left out: they may use whatever they like.
fn sources(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_path_buf()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(place).into_iter().flatten() {
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        if path.is_dir() && !path.ends_with("tests") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}

/// Numbered lines of code: no comments, and nothing from the tests at the bottom on.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end]
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or("")))
}

/// Whether `word` stands in `line` and is not merely the tail or head of a longer name.
fn names(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let open_end = word.ends_with("::");
        !before.is_some_and(is_name) && (open_end || !after.is_some_and(is_name))
    })
}
