//! One server that is sent to: connects, copies, and does so again after a lost connection.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reliable_udp::copy::{CopyError, Event, Report, Sender, Source, Survey};
use reliable_udp::{Config, ConnectionStats, Endpoint};
use serde_json::Value;

use crate::exit::Exit;
use crate::output::Output;
use crate::progress::Progress;
use crate::secure::{Channel, ClientSecurity, FailureKind};
use crate::stop::{Stop, Stoppable};
use crate::summary::Stopwatch;
use crate::tally::Tally;
use crate::{json, link, text};

/// The first pause before a new connection, and the longest; each is twice as long as the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long the last segments may take to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(200);

/// What all targets have in common.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) sender: reliable_udp::copy::SenderBuilder,
    pub(crate) source: Source,
    pub(crate) survey: Survey,
    pub(crate) security: ClientSecurity,
    pub(crate) config: Config,
    pub(crate) patience: Duration,
    pub(crate) reconnects: u32,
    pub(crate) output: Output,
    pub(crate) stop: Stop,
}

/// How one target ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) target: String,
    pub(crate) exit: Exit,
    /// Why there was no end; files that failed are no error here.
    pub(crate) error: Option<String>,
    pub(crate) tally: Tally,
    /// How many connections it took.
    pub(crate) sessions: u64,
    pub(crate) elapsed: Duration,
    /// Of the last connection.
    pub(crate) stats: Option<ConnectionStats>,
}

/// Why a session ended before its time, and whether another may do better.
struct Lost {
    exit: Exit,
    words: String,
    may_recover: bool,
}

impl Lost {
    fn final_one(exit: Exit, words: impl Into<String>) -> Self {
        Self {
            exit,
            words: words.into(),
            may_recover: false,
        }
    }
}

/// What the sessions with a target share with the callback that hears of their events.
#[derive(Debug)]
struct Watch {
    tally: Tally,
    progress: Progress,
}

/// One target, while it is sent to.
#[derive(Debug)]
struct Target {
    name: String,
    plan: Plan,
    watch: Arc<Mutex<Watch>>,
    sessions: u64,
    stats: Option<ConnectionStats>,
}

/// Sends everything to `target`, in as many sessions as that takes.
pub(crate) async fn copy(name: String, plan: Plan) -> Outcome {
    let clock = Stopwatch::start();
    let watch = Watch {
        tally: Tally::default(),
        progress: Progress::new(&plan.output, &name, Some(plan.survey)),
    };
    let mut target = Target {
        name,
        plan,
        watch: Arc::new(Mutex::new(watch)),
        sessions: 0,
        stats: None,
    };
    let ended = target.sessions().await;
    let tally = target.watched(|watch| {
        // Nothing is left to end if the last session had a report.
        watch.tally.end(None);
        watch.tally
    });
    let (exit, error) = match ended {
        Ok(report) if report.is_complete() => (Exit::Complete, None),
        Ok(_) => (Exit::Incomplete, None),
        Err(lost) => (lost.exit, Some(lost.words)),
    };
    Outcome {
        target: target.name,
        exit,
        error,
        tally,
        sessions: target.sessions,
        elapsed: clock.elapsed(),
        stats: target.stats,
    }
}

impl Target {
    async fn sessions(&mut self) -> Result<Report, Lost> {
        let (mut failures, mut pause) = (0, PAUSES.0);
        loop {
            let lost = match self.session().await {
                Ok(report) => return Ok(report),
                Err(lost) => lost,
            };
            if self.plan.stop.is_requested() {
                return Err(Lost::final_one(Exit::Interrupted, "interrupted"));
            }
            // Whoever was never reached may not be there at all.
            if !lost.may_recover || self.sessions == 0 {
                return Err(lost);
            }
            if self.watched(|watch| watch.tally.has_moved()) {
                (failures, pause) = (0, PAUSES.0);
            }
            if failures >= self.plan.reconnects {
                return Err(lost);
            }
            failures += 1;
            let (name, words) = (&self.name, &lost.words);
            let more = self.plan.reconnects - failures;
            self.plan.output.event(|| {
                let mut object = json::head("lost", ("target", name));
                object.insert("error".to_owned(), words.as_str().into());
                object.insert("again_after_s".to_owned(), pause.as_secs_f64().into());
                Some(Value::Object(object))
            });
            self.plan.output.note(format_args!(
                "{name} {words}; trying again in {pause:?}, and {more} times more"
            ));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.plan.stop.requested() => {
                    return Err(Lost::final_one(Exit::Interrupted, "interrupted"));
                }
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// One connection, from its beginning to its end.
    async fn session(&mut self) -> Result<Report, Lost> {
        self.watched(|watch| {
            watch.tally.begin_session();
            watch.progress.begin_session();
        });
        let stop = self.plan.stop.clone();
        let (endpoint, channel) = tokio::select! {
            connected = self.connect() => connected?,
            () = stop.requested() => {
                return Err(Lost::final_one(Exit::Interrupted, "interrupted"));
            }
        };
        self.sessions += 1;
        self.plan.output.event(|| {
            Some(Value::Object(json::head(
                "connected",
                ("target", &self.name),
            )))
        });
        let result = self.send(channel).await;
        // A reset too has to leave before the process may.
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, endpoint.wait_idle()).await;
        result
    }

    async fn send(&mut self, channel: Channel) -> Result<Report, Lost> {
        let mut builder = self.plan.sender.clone().channel_binding(channel.binding());
        if let Some(secret) = self.plan.security.secret() {
            builder = builder.secret(secret.clone());
        }
        let sender: Sender = builder
            .build()
            .map_err(|error| Lost::final_one(Exit::Usage, text::chain(&error)))?;
        let mut stream = Stoppable::new(channel, &self.plan.stop);
        let watch = Arc::clone(&self.watch);
        let (output, name) = (self.plan.output.clone(), self.name.clone());
        let on_event = move |event: Event| {
            output.event(|| json::event(("target", &name), &event));
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            watch.tally.on_event(&event);
            watch.progress.on_event(&event);
        };
        let result = sender
            .send_source(&mut stream, &self.plan.source, on_event)
            .await;
        self.stats = Some(stream.channel().socket().stats());
        match result {
            Ok(report) => {
                self.watched(|watch| watch.tally.end(Some(&report)));
                link::close_first(stream.into_channel()).await;
                Ok(report)
            }
            Err(error) => {
                link::close_broken(stream).await;
                Err(Lost {
                    exit: Exit::of(&error),
                    may_recover: may_recover(&error),
                    words: text::chain(&error),
                })
            }
        }
    }

    async fn connect(&self) -> Result<(Endpoint, Channel), Lost> {
        let (name, patience) = (self.name.as_str(), self.plan.patience);
        let lost = |error: &dyn std::error::Error| Lost {
            exit: Exit::Connection,
            words: format!("cannot connect: {}", text::chain(error)),
            may_recover: true,
        };
        let mut last = None;
        for remote in tokio::net::lookup_host(name)
            .await
            .map_err(|error| lost(&error))?
        {
            let any: SocketAddr = match remote {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let connecting = async {
                let endpoint = Endpoint::bind(any, self.plan.config.clone()).await?;
                let socket = endpoint.connect(remote).await?;
                Ok::<_, std::io::Error>((endpoint, socket))
            };
            match connecting.await {
                Ok((endpoint, socket)) => {
                    let channel = self.plan.security.connect(name, socket, patience).await;
                    return channel
                        .map(|channel| (endpoint, channel))
                        .map_err(|failure| Lost {
                            words: lost(&failure).words,
                            exit: failure.kind.into(),
                            may_recover: failure.kind == FailureKind::Connection,
                        });
                }
                Err(error) => last = Some(error),
            }
        }
        let none = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        Err(lost(&last.unwrap_or(none)))
    }

    fn watched<T>(&self, look: impl FnOnce(&mut Watch) -> T) -> T {
        look(&mut self.watch.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether another connection may do better.
fn may_recover(error: &CopyError) -> bool {
    matches!(
        error,
        CopyError::Connection { .. }
            | CopyError::Stalled { .. }
            | CopyError::HandshakeTimeout(_)
            | CopyError::Peer { .. }
    )
}

impl Outcome {
    pub(crate) fn json(&self) -> Value {
        serde_json::json!({
            "target": self.target,
            "outcome": self.exit.word(),
            "exit": self.exit.number(),
            "error": self.error,
            "sessions": self.sessions,
            "seconds": self.elapsed.as_secs_f64(),
            "totals": json::sums(&self.tally),
            "connection": self.stats.as_ref().map(json::connection),
        })
    }
}
