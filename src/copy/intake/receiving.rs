//! The file whose content is coming in: what may come next of it.

use super::super::error::ProtocolError;
use super::super::protocol::{BLOCK, END};
use super::super::store::Incoming;
use super::super::tree_hash::BLOCK_LEN_U64;
use super::Charge;

/// The file being received.
///
/// # Invariants
/// - `received` is at most the charge's `size`, and never past the end of the block that is open.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) id: u64,
    pub(super) attempt: u8,
    pub(super) attempts: u8,
    pub(super) charge: Charge,
    pub(super) incoming: Incoming,
    received: u64,
    /// Where the block begins that has not been ended; files of one block have no ends.
    block: u64,
}

impl Receiving {
    pub(super) fn new(
        id: u64,
        attempt: u8,
        attempts: u8,
        charge: Charge,
        incoming: Incoming,
    ) -> Self {
        Self {
            id,
            attempt,
            attempts,
            charge,
            incoming,
            received: charge.from,
            block: charge.from,
        }
    }

    /// So many bytes come next.
    pub(super) fn advance(&mut self, frame: u8, len: u64) -> Result<(), ProtocolError> {
        let (got, announced) = (self.received.saturating_add(len), self.charge.size);
        if got > announced {
            return Err(ProtocolError::FileLength { announced, got });
        }
        if got > self.block_end() {
            let when = "across the end of a block";
            return Err(ProtocolError::Unexpected { frame, when });
        }
        self.received = got;
        Ok(())
    }

    pub(super) fn end_block(&mut self) -> Result<(), ProtocolError> {
        let has_blocks = self.charge.size > BLOCK_LEN_U64;
        if !has_blocks || self.received != self.block_end() || self.received == self.block {
            let (frame, when) = (BLOCK, "within a block");
            return Err(ProtocolError::Unexpected { frame, when });
        }
        self.block = self.received;
        Ok(())
    }

    pub(super) fn check_end(&self) -> Result<(), ProtocolError> {
        let (announced, got) = (self.charge.size, self.received);
        if got != announced {
            return Err(ProtocolError::FileLength { announced, got });
        }
        if self.charge.size > BLOCK_LEN_U64 && self.block != self.charge.size {
            let (frame, when) = (END, "within a block");
            return Err(ProtocolError::Unexpected { frame, when });
        }
        Ok(())
    }

    fn block_end(&self) -> u64 {
        self.block
            .saturating_add(BLOCK_LEN_U64)
            .min(self.charge.size)
    }
}
