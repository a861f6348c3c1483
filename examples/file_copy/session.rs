//! One client of the server: who it is, what it brings, how it ends.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reliable_udp::ReliableUdpSocket;
use reliable_udp::copy::{CopyError, Denial, Event, Receiver, Report};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::allow::Allowed;
use crate::exit::Exit;
use crate::output::Output;
use crate::progress::Progress;
use crate::secure::ServerSecurity;
use crate::stop::{Stop, Stoppable};
use crate::summary::Stopwatch;
use crate::tally::Tally;
use crate::{json, link, summary, text};

/// How many clients are being told at once that they are not served; others find a closed door.
const DENIALS: usize = 64;

/// What all clients find.
#[derive(Debug, Clone)]
pub(crate) struct House {
    pub(crate) receiver: Receiver,
    pub(crate) security: ServerSecurity,
    pub(crate) allowed: Allowed,
    pub(crate) patience: Duration,
    pub(crate) output: Output,
    pub(crate) stop: Stop,
    places: Arc<Semaphore>,
    denials: Arc<Semaphore>,
}

impl House {
    /// `max_connections` clients are served at once.
    pub(crate) fn new(
        receiver: Receiver,
        security: ServerSecurity,
        allowed: Allowed,
        max_connections: usize,
        patience: Duration,
        output: &Output,
        stop: &Stop,
    ) -> Self {
        Self {
            receiver,
            security,
            allowed,
            patience,
            output: output.clone(),
            stop: stop.clone(),
            places: Arc::new(Semaphore::new(max_connections)),
            denials: Arc::new(Semaphore::new(DENIALS)),
        }
    }

    /// Serves one client.
    pub(crate) async fn serve(self, socket: ReliableUdpSocket, peer: SocketAddr) -> Exit {
        let (denial, permit) = match self.admit(peer) {
            Ok(admitted) => admitted,
            Err(denial) => {
                self.refused(peer, &denial);
                socket.abort();
                return Exit::Refused;
            }
        };
        let channel = match self.security.accept(socket, self.patience).await {
            Ok(channel) => channel,
            Err(failure) => {
                self.refused(peer, &text::chain(&failure));
                return failure.kind.into();
            }
        };
        let receiver = self.receiver.with_channel_binding(channel.binding());
        let mut stream = Stoppable::new(channel, &self.stop);
        if let Some(denial) = denial {
            self.refused(peer, &denial);
            // That it is told is a courtesy.
            let _ = receiver.deny(&mut stream, denial).await;
            link::close_broken(stream).await;
            return Exit::Refused;
        }
        let exit = Guest::new(&self, peer).receive(&receiver, stream).await;
        drop(permit);
        exit
    }

    /// Finds a place for a client: to be served, or to be told why not.
    fn admit(&self, peer: SocketAddr) -> Result<(Option<Denial>, OwnedSemaphorePermit), Denial> {
        let place = if self.allowed.check(peer.ip()) {
            let place = Arc::clone(&self.places).try_acquire_owned();
            place.map_err(|_| Denial::Busy)
        } else {
            Err(Denial::NotAllowed)
        };
        match place {
            Ok(permit) => Ok((None, permit)),
            Err(denial) => match Arc::clone(&self.denials).try_acquire_owned() {
                Ok(permit) => Ok((Some(denial), permit)),
                Err(_) => Err(denial),
            },
        }
    }

    fn refused(&self, peer: SocketAddr, why: &dyn fmt::Display) {
        self.output
            .complain(format_args!("[{peer}] not served: {why}"));
        self.output.event(|| {
            let mut object = json::head("denied", ("peer", &peer.to_string()));
            object.insert("error".to_owned(), why.to_string().into());
            Some(Value::Object(object))
        });
    }
}

/// A client that is served.
struct Guest<'a> {
    house: &'a House,
    name: String,
    label: String,
    clock: Stopwatch,
    watch: Arc<Mutex<(Tally, Progress)>>,
}

impl<'a> Guest<'a> {
    fn new(house: &'a House, peer: SocketAddr) -> Self {
        let label = format!("[{peer}]");
        let progress = Progress::new(&house.output, &label, None);
        Self {
            house,
            name: peer.to_string(),
            label,
            clock: Stopwatch::start(),
            watch: Arc::new(Mutex::new((Tally::default(), progress))),
        }
    }

    async fn receive(self, receiver: &Receiver, mut stream: Stoppable) -> Exit {
        let watch = Arc::clone(&self.watch);
        let (output, name) = (self.house.output.clone(), self.name.clone());
        output.event(|| Some(Value::Object(json::head("connected", ("peer", &name)))));
        let on_event = move |event: Event| {
            output.event(|| json::event(("peer", &name), &event));
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            let (tally, progress) = &mut *watch;
            tally.on_event(&event);
            progress.on_event(&event);
        };
        let result = receiver.receive_with(&mut stream, on_event).await;
        let exit = self.show(&result, &stream);
        match result {
            Ok(_) => {
                if let Err(error) = link::close_last(stream).await {
                    let output = &self.house.output;
                    output.note(format_args!("{} closing: {error}", self.label));
                }
            }
            Err(_) => link::close_broken(stream).await,
        }
        exit
    }

    fn show(&self, result: &Result<Report, CopyError>, stream: &Stoppable) -> Exit {
        let exit = match result {
            Ok(report) if report.is_complete() => Exit::Complete,
            Ok(_) => Exit::Incomplete,
            Err(_) if self.house.stop.is_requested() => Exit::Interrupted,
            Err(error) => Exit::of(error),
        };
        let tally = {
            let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
            watch.0.end(result.as_ref().ok());
            watch.0
        };
        let (output, elapsed) = (&self.house.output, self.clock.elapsed());
        let stats = stream.channel().socket().stats();
        let error = result.as_ref().err().map(|error| text::chain(error));
        match &error {
            Some(error) => output.complain(format_args!("{} {error}", self.label)),
            None => summary::print(output, &self.label, &tally, elapsed, Some(&stats)),
        }
        output.report(|| {
            serde_json::json!({
                "event": "report",
                "peer": self.name,
                "outcome": exit.word(),
                "exit": exit.number(),
                "error": error,
                "seconds": elapsed.as_secs_f64(),
                "totals": json::sums(&tally),
                "connection": json::connection(&stats),
            })
        });
        exit
    }
}
