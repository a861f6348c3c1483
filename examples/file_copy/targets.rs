//! Who is sent to: `--to` and `--addresses`.

use std::fs;
use std::path::{Path, PathBuf};

/// The servers to send to.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct TargetArgs {
    /// Server to send to, as HOST:PORT; may be repeated. All are sent to at once.
    #[arg(long, value_name = "HOST:PORT", value_parser = target)]
    to: Vec<String>,
    /// File that names servers to send to: one `HOST PORT` per line; `#` begins a comment.
    #[arg(long, value_name = "FILE")]
    addresses: Option<PathBuf>,
}

impl TargetArgs {
    /// Reads the file; the order is that of the command line, then that of the file.
    pub(crate) fn list(&self) -> Result<Vec<String>, String> {
        let mut targets = self.to.clone();
        if let Some(path) = &self.addresses {
            let text = fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            targets.extend(addresses(path, &text)?);
        }
        for (at, target) in targets.iter().enumerate() {
            if targets.iter().take(at).any(|before| before == target) {
                return Err(format!("{target} is named twice"));
            }
        }
        if targets.is_empty() {
            return Err("no server is named".into());
        }
        Ok(targets)
    }
}

fn addresses(path: &Path, text: &str) -> Result<Vec<String>, String> {
    let mut targets = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let wrong = |what: &str| format!("{}:{}: {what}", path.display(), at + 1);
        match (words.next(), words.next(), words.next()) {
            (None, ..) => {}
            (Some(host), Some(port), None) => {
                let text = if host.contains(':') && !host.starts_with('[') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                };
                targets.push(target(&text).map_err(|error| wrong(&error))?);
            }
            _ => return Err(wrong("expected HOST PORT")),
        }
    }
    Ok(targets)
}

/// Checks the form; whether the host exists is found when it is connected to.
fn target(text: &str) -> Result<String, String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("expected HOST:PORT".into());
    };
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(format!("{port:?} is no port: expected 1 to 65535"));
    }
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !is_bracketed) {
        return Err("expected HOST:PORT; an IPv6 address goes into [ ]".into());
    }
    Ok(text.to_owned())
}
