//! What the applications on both sides do, as data, and the streams that they send.

use std::sync::LazyLock;
use std::time::Duration;

use reliable_udp::sim::Rng;

/// Bytes of the block that a stream repeats; a prime, so that a misplaced block shows.
const BLOCK: usize = 1_048_573;

static BLOCKS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    [1, 2].map(|seed| {
        let mut block = vec![0; BLOCK];
        Rng::new(seed).fill(&mut block);
        block
    })
});

/// Who sends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    We,
    Kernel,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::We => Self::Kernel,
            Self::Kernel => Self::We,
        }
    }
}

/// A position in the stream of one side.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    sender: Side,
    pub position: usize,
}

impl Stream {
    pub fn of(sender: Side) -> Self {
        let position = 0;
        Self { sender, position }
    }

    /// The next bytes, at least 1 and at most `max`, without moving on.
    pub fn next(&self, max: usize) -> &'static [u8] {
        let block = &BLOCKS[self.sender as usize];
        let rest = &block[self.position % BLOCK..];
        &rest[..max.min(rest.len())]
    }

    /// Compares what has arrived with what was sent, and moves on.
    pub fn check(&mut self, mut arrived: &[u8]) -> Result<(), String> {
        while !arrived.is_empty() {
            let sent = self.next(arrived.len());
            let (now, later) = arrived.split_at(sent.len());
            if now != sent {
                let same = now.iter().zip(sent).take_while(|(a, b)| a == b).count();
                return Err(format!("byte {} is wrong", self.position + same));
            }
            self.position += now.len();
            arrived = later;
        }
        Ok(())
    }
}

/// What the writing half of an application does.
#[derive(Debug, Clone, Copy)]
pub enum Write {
    /// Writes this many bytes.
    Send(usize),
    /// Ends the stream.
    Finish,
    /// Waits until the reading half is through.
    AfterReading,
    /// Writes until the connection is reset.
    UntilReset,
}

/// What the reading half of an application does.
#[derive(Debug, Clone, Copy)]
pub enum Read {
    Pause(Duration),
    /// Reads this many bytes.
    Take(usize),
    /// Reads to the end of the stream, after this many bytes altogether.
    ToEnd(usize),
    /// Reads until the connection is reset.
    UntilReset,
}

/// How an application ends once both halves are through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The connection comes to its end by itself.
    Close,
    /// It is broken off, with RST.
    Abort,
    /// The other side has broken it off.
    Reset,
}

/// What an application does, its halves at the same time.
#[derive(Debug, Clone)]
pub struct Script {
    pub writer: Vec<Write>,
    pub reader: Vec<Read>,
    pub ending: Ending,
    /// Receive buffer in bytes, for one that is to run full.
    pub receive_buffer: Option<usize>,
}

impl Script {
    /// One that closes in the end.
    pub fn new(writer: &[Write], reader: &[Read]) -> Self {
        Self {
            writer: writer.to_vec(),
            reader: reader.to_vec(),
            ending: Ending::Close,
            receive_buffer: None,
        }
    }
}
