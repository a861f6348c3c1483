//! What the system has refused to do for a socket's sends, and how the same data leaves in spite of it.
//!
//! Segmentation, congestion marks and source addresses are asked for per send, and nothing says beforehand
//! whether kernel, route and device do them: a device without checksum offload answers a run with `EIO`, a
//! socket that sends without checksums with `EINVAL`, an old kernel a mark with `EINVAL`, and so does any
//! kernel for a source address that the machine has lost, or `ENETUNREACH`. Each is found out by sending again without it.
//! Segmentation and marks stay off for the socket from then on; a source address is left out where it is the
//! one that was refused, since the others may be as good as before.
//!
//! A datagram larger than the path takes is none of these: that error goes to the caller, and costs no feature,
//! also when a run of such datagrams has met it.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::driver::transport::Transmit;

/// What one socket does without.
pub(super) struct Refusals {
    /// Datagrams per send while segmentation is not refused.
    most_segments: usize,
    is_segmentation_refused: AtomicBool,
    marks: AtomicBool,
    has_source: AtomicBool,
    /// The source address refused last.
    source: Mutex<Option<IpAddr>>,
}

impl Refusals {
    pub(super) fn new(max_segments: usize) -> Self {
        Self {
            most_segments: max_segments.max(1),
            is_segmentation_refused: AtomicBool::new(false),
            marks: AtomicBool::new(false),
            has_source: AtomicBool::new(false),
            source: Mutex::new(None),
        }
    }

    pub(super) fn max_segments(&self) -> usize {
        if self.refuses_segmentation() {
            1
        } else {
            self.most_segments
        }
    }

    pub(super) fn refuses_segmentation(&self) -> bool {
        self.is_segmentation_refused.load(Ordering::Relaxed)
    }

    pub(super) fn refuses_marks(&self) -> bool {
        self.marks.load(Ordering::Relaxed)
    }

    pub(super) fn refuses_source(&self) -> bool {
        self.has_source.load(Ordering::Relaxed)
    }

    /// Sends by `call`, as often and with as much left out as it takes.
    ///
    /// # Errors
    ///
    /// What `call` says where leaving something out does not help: `WouldBlock` only if nothing has left, and
    /// [`Transmit::is_too_large`] if the run's datagrams are too large for the path.
    pub(super) fn send(
        &self,
        transmit: &Transmit<'_>,
        mut call: impl FnMut(&Transmit<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut whole = *transmit;
        if self.refuses_marks() {
            whole.ecn = None;
        }
        if self.refuses_source() && self.source() == whole.local_ip {
            whole.local_ip = None;
        }
        let len: usize = whole.contents.iter().map(|slice| slice.len()).sum();
        whole.segment_size = whole.segment_size.filter(|size| (1..len).contains(size));
        let Some(size) = whole.segment_size else {
            return self.send_datagram(&mut whole, &mut call);
        };
        let mut is_suspect = true;
        if self.max_segments() > 1 {
            match call(&whole) {
                Err(error) if is_refusal(&error, &whole) => {}
                // Where the first datagram leaves nevertheless, it was an earlier one that was too large.
                Err(error) if Transmit::is_too_large(&error) => is_suspect = false,
                outcome => return outcome,
            }
        }
        self.send_singly(whole, (size, is_suspect), &mut call)
    }

    /// Sends a run one by one. Its first datagram tells why it was refused: whatever that one meets too was not
    /// the segmentation's fault, which without `is_suspect` nothing is.
    fn send_singly(
        &self,
        run: Transmit<'_>,
        (size, is_suspect): (usize, bool),
        call: &mut impl FnMut(&Transmit<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        // Seldom enough for an allocation: from here on runs are no longer asked for.
        let gathered = run.gather();
        let (first, rest) = gathered.split_at(size.min(gathered.len()));
        let mut single = Transmit {
            segment_size: None,
            ..run
        };
        let slice = [io::IoSlice::new(first)];
        let mut tried = Transmit {
            contents: &slice,
            ..single
        };
        self.send_datagram(&mut tried, call)?;
        let was_changed = (tried.ecn, tried.local_ip) != (run.ecn, run.local_ip);
        (single.ecn, single.local_ip) = (tried.ecn, tried.local_ip);
        if was_changed && rest.len() > size && self.max_segments() > 1 {
            let slice = [io::IoSlice::new(rest)];
            let again = Transmit {
                contents: &slice,
                segment_size: Some(size),
                ..single
            };
            match call(&again) {
                Err(error) if is_refusal(&error, &again) => {}
                outcome => return past_full_socket(outcome),
            }
        }
        if is_suspect && (!was_changed || rest.len() > size) {
            self.refuse_segmentation();
        }
        let mut outcome = Ok(());
        for segment in rest.chunks(size.max(1)) {
            let slice = [io::IoSlice::new(segment)];
            let mut datagram = Transmit {
                contents: &slice,
                ..single
            };
            outcome = outcome.and(past_full_socket(self.send_datagram(&mut datagram, call)));
        }
        outcome
    }

    /// Sends one datagram, and leaves in `transmit` with what it left.
    fn send_datagram(
        &self,
        transmit: &mut Transmit<'_>,
        call: &mut impl FnMut(&Transmit<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let refusal = match call(transmit) {
            Err(error) if is_refusal(&error, transmit) => error,
            outcome => return outcome,
        };
        let (ecn, local_ip) = (transmit.ecn, transmit.local_ip);
        let attempts = [
            (ecn.is_some() && is_unable(&refusal), None, local_ip),
            (local_ip.is_some(), ecn, None),
            (ecn.is_some() && local_ip.is_some(), None, None),
        ];
        for (is_different, ecn_left, local_ip_left) in attempts {
            if !is_different {
                continue;
            }
            let reduced = Transmit {
                ecn: ecn_left,
                local_ip: local_ip_left,
                ..*transmit
            };
            match call(&reduced) {
                Ok(()) => {
                    if ecn_left != ecn {
                        self.refuse_marks();
                    }
                    if local_ip_left != local_ip {
                        self.refuse_source(local_ip);
                    }
                    *transmit = reduced;
                    return Ok(());
                }
                Err(error) if is_refusal(&error, transmit) => {}
                outcome => return outcome,
            }
        }
        Err(refusal)
    }

    fn source(&self) -> Option<IpAddr> {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse_segmentation(&self) {
        if !self.is_segmentation_refused.swap(true, Ordering::Relaxed) {
            tracing::debug!("the system refuses to segment; datagrams leave one by one");
        }
    }

    fn refuse_marks(&self) {
        if !self.marks.swap(true, Ordering::Relaxed) {
            tracing::debug!("the system refuses congestion marks");
        }
    }

    fn refuse_source(&self, source: Option<IpAddr>) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = source;
        if !self.has_source.swap(true, Ordering::Relaxed) {
            tracing::debug!(?source, "the system refuses a source address");
        }
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals")
            .field("max_segments", &self.max_segments())
            .field("marks", &self.refuses_marks())
            .field("source", &self.source())
            .finish_non_exhaustive()
    }
}

/// What a part of a run does not find room for counts as lost: the run as a whole has left.
fn past_full_socket(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        outcome => outcome,
    }
}

/// Whether an error may have come of what `transmit` asks for. Linux has several for a source address that is not its own,
/// which may be the destination's fault as well.
fn is_refusal(error: &io::Error, transmit: &Transmit<'_>) -> bool {
    is_unable(error)
        || transmit.local_ip.is_some()
            && matches!(
                error.kind(),
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable
            )
}

/// `EIO` and `EINVAL`, which the system answers to what it cannot do.
fn is_unable(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    const EINVAL: i32 = 22;
    cfg!(unix) && matches!(error.raw_os_error(), Some(EIO | EINVAL))
}

#[cfg(test)]
mod tests;
