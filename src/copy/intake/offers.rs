//! What the receiver knows of offers: those without a verdict, and its last answers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::super::error::ProtocolError;
use super::super::path::WirePath;
use super::super::progress::Digest;
use super::super::protocol::{Attributes, Frame, MAX_OPEN_PATHS, MAX_WINDOW, Tag, Verdict};
use super::super::store::Considered;
use super::super::tree_hash::Cv;
use super::Charge;

/// The offers of a session.
///
/// # Invariants
/// - `next_id` is the number of offers seen; each has the number before it increased.
/// - `open` holds those without a verdict: at most [`MAX_WINDOW`], and at most [`MAX_OPEN_PATHS`] bytes
///   of paths among several.
/// - `answers[id % MAX_WINDOW]` belongs to offer `id` for the last [`MAX_WINDOW`] offers.
#[derive(Debug)]
pub(super) struct Offers {
    next_id: u64,
    open: HashMap<u64, Open>,
    open_paths: usize,
    answers: Vec<Answer>,
}

/// An offer without a verdict.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) shown: Arc<Path>,
    pub(super) path_len: usize,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A file of which it is not known yet whether it is needed.
    Deciding,
    /// A file whose content was asked for.
    Needed {
        wish: Wish,
        from: u64,
        attempt: u8,
        attempts: u8,
    },
    /// A file whose content is coming in.
    Receiving,
    /// A file whose content has come.
    Settling {
        attempt: u8,
        attempts: u8,
        charge: Charge,
    },
    Link,
    Directory,
}

/// A file that the sender has, at a path that was checked.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) path: WirePath,
    pub(super) size: u64,
    pub(super) attributes: Attributes,
    pub(super) tag: Tag,
    pub(super) digest: Option<Digest>,
}

impl Wish {
    pub(super) fn considered(&self) -> Considered<'_> {
        Considered {
            path: &self.path,
            size: self.size,
            attributes: self.attributes,
            tag: self.tag,
            digest: self.digest,
        }
    }
}

/// What the sender was told last.
#[derive(Debug, Clone)]
enum Answer {
    Nothing,
    Need { from: u64, stack: Vec<Cv> },
    Verdict(Verdict),
}

impl Offers {
    pub(super) fn new() -> Self {
        let window = usize::try_from(MAX_WINDOW).unwrap_or(usize::MAX);
        Self {
            next_id: 0,
            open: HashMap::new(),
            open_paths: 0,
            answers: vec![Answer::Nothing; window],
        }
    }

    pub(super) fn window(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes a new offer in.
    pub(super) fn open(&mut self, id: u64, open: Open) -> Result<(), ProtocolError> {
        if id != self.next_id {
            let expected = self.next_id;
            return Err(ProtocolError::OfferOrder { expected, got: id });
        }
        self.open_paths += open.path_len;
        let is_crowded = self.open.len() >= self.window()
            || (self.open_paths > MAX_OPEN_PATHS && !self.open.is_empty());
        if is_crowded {
            return Err(ProtocolError::TooManyOffers);
        }
        self.next_id = id.saturating_add(1);
        self.open.insert(id, open);
        self.remember(id, Answer::Nothing);
        Ok(())
    }

    /// Asks for the content of a file, and writes the request.
    pub(super) fn need(
        &mut self,
        id: u64,
        kind: Kind,
        from: u64,
        stack: Vec<Cv>,
        replies: &mut Vec<u8>,
    ) {
        self.set(id, kind);
        let answer = stack.clone();
        Frame::Need { id, from, stack }.encode(replies);
        self.remember(
            id,
            Answer::Need {
                from,
                stack: answer,
            },
        );
    }

    /// The content of a file that was asked for begins: what it is, and which attempt of how many.
    pub(super) fn begin(&mut self, id: u64, at: u64) -> Option<(Wish, u8, u8)> {
        let open = self.open.get_mut(&id)?;
        if !matches!(&open.kind, Kind::Needed { from, .. } if *from == at) {
            return None;
        }
        match std::mem::replace(&mut open.kind, Kind::Receiving) {
            Kind::Needed {
                wish,
                attempt,
                attempts,
                ..
            } => Some((wish, attempt, attempts)),
            _ => None,
        }
    }

    /// What a file counts for that was asked for and has not begun, and its attempts.
    pub(super) fn needed(&self, id: u64) -> Option<(Charge, u8, u8)> {
        match self.open.get(&id)?.kind {
            Kind::Needed {
                ref wish,
                from,
                attempt,
                attempts,
            } => {
                let size = wish.size;
                Some((Charge { from, size }, attempt, attempts))
            }
            _ => None,
        }
    }

    pub(super) fn kind(&self, id: u64) -> Option<&Kind> {
        self.open.get(&id).map(|open| &open.kind)
    }

    pub(super) fn set(&mut self, id: u64, kind: Kind) {
        if let Some(open) = self.open.get_mut(&id) {
            open.kind = kind;
        }
    }

    /// How the path of an offer without a verdict is shown.
    pub(super) fn shown(&self, id: u64) -> Arc<Path> {
        let open = self.open.get(&id);
        open.map_or_else(|| Path::new("").into(), |open| Arc::clone(&open.shown))
    }

    /// An offer has its verdict.
    pub(super) fn close(&mut self, id: u64, verdict: Verdict) {
        if let Some(open) = self.open.remove(&id) {
            self.open_paths = self.open_paths.saturating_sub(open.path_len);
        }
        self.remember(id, Answer::Verdict(verdict));
    }

    /// Checks that an offer was made and is remembered.
    pub(super) fn check(&self, id: u64) -> Result<(), ProtocolError> {
        let is_remembered = id < self.next_id && self.next_id - id <= MAX_WINDOW;
        is_remembered
            .then_some(())
            .ok_or(ProtocolError::NoSuchOffer(id))
    }

    /// Says again what was said last of an offer that is remembered.
    pub(super) fn repeat(&self, id: u64, replies: &mut Vec<u8>) {
        let frame = match self.answers.get(slot(id)) {
            None | Some(Answer::Nothing) => Frame::Verdict(id, Verdict::Unknown),
            Some(Answer::Need { from, stack }) => Frame::Need {
                id,
                from: *from,
                stack: stack.clone(),
            },
            Some(Answer::Verdict(verdict)) => Frame::Verdict(id, verdict.clone()),
        };
        frame.encode(replies);
    }

    fn remember(&mut self, id: u64, answer: Answer) {
        if let Some(slot) = self.answers.get_mut(slot(id)) {
            *slot = answer;
        }
    }
}

fn slot(id: u64) -> usize {
    usize::try_from(id % MAX_WINDOW).unwrap_or_default()
}
