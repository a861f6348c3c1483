//! Lines for people: on standard output what came out, on standard error what went wrong.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

/// Prints a line of result.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    // A closed pipe is no reason to stop copying.
    let _ = writeln!(io::stdout().lock(), "{}", tame(text));
}

/// Prints a line about something that went wrong, or of progress.
pub(crate) fn complain(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{}", tame(text));
}

/// Escapes control characters: names and words come from the other side, and must neither drive the
/// terminal nor begin a line of their own.
pub(crate) fn tame(text: impl fmt::Display) -> String {
    let mut tamed = String::new();
    for character in text.to_string().chars() {
        if character.is_control() {
            tamed.extend(character.escape_default());
        } else {
            tamed.push(character);
        }
    }
    tamed
}

/// An error with all its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
