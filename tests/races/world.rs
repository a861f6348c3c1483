//! What the tests share: a model in which time stands still, a driver task that can be stopped, and an
//! endpoint with its driver on a [`Line`].

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Counter, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use loom::sync::Notify;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::{self, JoinHandle};
use reliable_udp::{Config, Endpoint, ReliableUdpSocket};
use tokio::runtime::Runtime;

use crate::line::{Line, peer_addr};

/// Loom's default, 32 KiB, is too small for an endpoint. Counted in words.
const STACK: usize = 1 << 16;
/// How often a task may be interrupted where it need not wait. More finds nothing new and takes long.
const PREEMPTIONS: usize = 2;

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs `scenario` in every order of events that differs.
pub fn model(scenario: fn(World)) {
    model_with(config, scenario);
}

/// The same with a configuration.
pub fn model_with(config: fn() -> Config, scenario: fn(World)) {
    check(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let runtime = Arc::new(runtime);
        let _guard = runtime.enter();
        let inner = Arc::clone(&runtime);
        spawn(move || scenario(World::new(config(), inner)))
            .join()
            .unwrap();
    });
}

/// Runs `model` in every order of events that differs.
pub fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    builder.max_branches = 20_000;
    let orders = Arc::new(Counter::new(0));
    let counted = Arc::clone(&orders);
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        model();
    });
    println!("{} orders", orders.load(Relaxed));
}

/// Starts a thread of the model.
pub fn spawn<R: Send + 'static>(run: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    thread::Builder::new().stack_size(STACK).spawn(run).unwrap()
}

/// Runs a future to its end. If nobody wakes it, loom reports a deadlock.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Bell(Notify);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.notify();
        }
    }
    let bell = Arc::new(Bell(Notify::new()));
    let waker = Waker::from(Arc::clone(&bell));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => bell.0.wait(),
        }
    }
}

/// Polls a future once, as a task that nobody hears of any more.
pub fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// What tells a driver task to go on.
struct Signals {
    bits: AtomicUsize,
    bell: Notify,
}

const WOKEN: usize = 1;
const STOP: usize = 2;

impl Signals {
    fn set(&self, bit: usize) {
        self.bits.fetch_or(bit, Ordering::AcqRel);
        self.bell.notify();
    }
}

impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.set(WOKEN);
    }
}

/// The driver of an endpoint as a task: polled once at the start and whenever it was woken.
pub struct Task {
    driver: Option<Driver>,
    signals: Arc<Signals>,
}

impl Task {
    /// Polls the driver as long as it is woken; returns whether it goes on living.
    pub fn run_until_quiet(&mut self) -> bool {
        while self.signals.bits.fetch_and(!WOKEN, Ordering::AcqRel) & WOKEN != 0 {
            self.poll();
        }
        self.driver.is_some()
    }

    /// Wakes the task.
    pub fn wake(&self) {
        self.signals.set(WOKEN);
    }

    /// Runs the task on a thread of its own.
    pub fn start(mut self) -> Running {
        let signals = Arc::clone(&self.signals);
        let thread = spawn(move || {
            let mut is_stopping = false;
            loop {
                let bits = self.signals.bits.swap(0, Ordering::AcqRel);
                is_stopping |= bits & STOP != 0;
                if bits & WOKEN != 0 {
                    self.poll();
                    continue;
                }
                if is_stopping || self.driver.is_none() {
                    return self;
                }
                self.signals.bell.wait();
            }
        });
        Running { signals, thread }
    }

    /// Drops the driver, as a runtime does that shuts down.
    pub fn abort(mut self) {
        self.driver = None;
    }

    fn poll(&mut self) {
        let waker = Waker::from(Arc::clone(&self.signals));
        if let Some(driver) = &mut self.driver
            && driver
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
        {
            self.driver = None;
        }
    }
}

/// A driver task on its thread.
pub struct Running {
    signals: Arc<Signals>,
    thread: JoinHandle<Task>,
}

impl Running {
    /// Stops the task once nobody has woken it any more.
    pub fn stop(self) -> Task {
        self.signals.set(STOP);
        self.thread.join().unwrap()
    }

    /// Waits until the driver ends by itself.
    pub fn ended(self) {
        assert!(self.thread.join().unwrap().driver.is_none());
    }
}

/// An endpoint and its driver, asleep, on a line.
pub struct World {
    pub line: Arc<Line>,
    pub endpoint: Endpoint,
    pub task: Task,
    /// Time stands still in it.
    runtime: Arc<Runtime>,
}

impl World {
    fn new(config: Config, runtime: Arc<Runtime>) -> Self {
        let line = Line::new();
        let (endpoint, driver) = Endpoint::with_driver(line.clone(), config).unwrap();
        let signals = Arc::new(Signals {
            bits: AtomicUsize::new(WOKEN),
            bell: Notify::new(),
        });
        let mut task = Task {
            driver: Some(Box::pin(driver)),
            signals,
        };
        assert!(task.run_until_quiet());
        Self {
            line,
            endpoint,
            task,
            runtime,
        }
    }

    /// Connects to the peer.
    pub fn connect(&mut self) -> ReliableUdpSocket {
        let mut connecting = pin!(self.endpoint.connect(peer_addr()));
        loop {
            if let Poll::Ready(socket) = poll_once(connecting.as_mut()) {
                self.task.run_until_quiet();
                return socket.unwrap();
            }
            assert!(self.task.run_until_quiet());
        }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.runtime.block_on(tokio::time::advance(by));
    }
}

/// Small buffers, and nothing waits for more to say.
pub fn config() -> Config {
    Config::builder()
        .send_buffer(4_096)
        .ack_delay(Duration::ZERO)
        .nodelay(true)
        .build()
        .unwrap()
}
