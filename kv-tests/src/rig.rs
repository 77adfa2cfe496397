//! A store under test: its place, and how to open it.

use crate::Context;
use crate::sim::SimFs;
use crate::watch::Watched;
use kv_core::{
    Always, AnyOf, Background, Clock, Engine, Env, Fs, KeepNothing, KeepPast, Limits, Manual, ManualClock,
    MaxLogSize, OpenOptions, OsFs, Periodic, PersistencePolicy, Result, RetentionPolicy, Scale, SystemClock,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The persistence policies that the suite opens engines with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Changes are durable on return.
    Always,
    /// Changes are durable after 10 ms.
    Periodic,
    /// Changes are durable after this many bytes.
    MaxLogSize(u64),
    /// Changes are durable only on request.
    Manual,
    /// Changes are durable after 10 ms or 300 bytes.
    AnyOf,
    /// Each change is handed to the operating system, and is durable only on request.
    Write,
    /// Each change is handed to the operating system, and they are durable after 300 bytes.
    WriteThenSync,
}

impl Policy {
    /// One of each.
    pub const ALL: [Policy; 7] = [
        Policy::Always,
        Policy::Periodic,
        Policy::MaxLogSize(300),
        Policy::Manual,
        Policy::AnyOf,
        Policy::Write,
        Policy::WriteThenSync,
    ];

    /// The policy as the engine gets it.
    pub fn build(self) -> Arc<dyn PersistencePolicy> {
        let periodic = Periodic::new(Policy::INTERVAL);
        let write = Periodic::without_sync(Duration::ZERO);
        match self {
            Policy::Always => Arc::new(Always),
            Policy::Periodic => Arc::new(periodic),
            Policy::MaxLogSize(bytes) => Arc::new(MaxLogSize::new(bytes)),
            Policy::Manual => Arc::new(Manual),
            Policy::AnyOf => Arc::new(AnyOf::new(vec![Box::new(periodic), Box::new(MaxLogSize::new(300))])),
            Policy::Write => Arc::new(write),
            Policy::WriteThenSync => {
                Arc::new(AnyOf::new(vec![Box::new(write), Box::new(MaxLogSize::new(300))]))
            }
        }
    }

    /// Whether it answers every change at least with a `Write`: with inline background work, the
    /// operating system has the change when its call returns.
    pub(crate) fn hands_over(self) -> bool {
        matches!(self, Policy::Always | Policy::Write | Policy::WriteThenSync)
    }

    /// The name in a scenario.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Policy::Always => "always",
            Policy::Periodic => "periodic",
            Policy::MaxLogSize(_) => "max_log_size",
            Policy::Manual => "manual",
            Policy::AnyOf => "any_of",
            Policy::Write => "write",
            Policy::WriteThenSync => "write_then_sync",
        }
    }

    /// The interval of `Periodic` and `AnyOf`.
    pub const INTERVAL: Duration = Duration::from_millis(10);
}

/// The past states that the suite has engines keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeps {
    /// None: the default of engines.
    #[default]
    Nothing,
    /// All.
    All,
    /// Those of the last milliseconds.
    Ms(u64),
    /// As far as this many bytes of superseded records reach.
    Bytes(u64),
}

impl Keeps {
    /// The policy as the engine gets it.
    pub fn build(self) -> Arc<dyn RetentionPolicy> {
        match self {
            Keeps::Nothing => Arc::new(KeepNothing),
            Keeps::All => Arc::new(KeepPast::all()),
            Keeps::Ms(ms) => Arc::new(KeepPast::of_time(Duration::from_millis(ms))),
            Keeps::Bytes(bytes) => Arc::new(KeepPast::all().bytes_max(bytes)),
        }
    }
}

/// How to open a store.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// When changes become durable.
    pub policy: Policy,
    /// Whether background work runs inline or in threads.
    pub background: Background,
    /// The size of the engine's units, such as segments.
    pub scale: Scale,
    /// Size limits.
    pub limits: Limits,
    /// The past states that the engine keeps, if it has
    /// [`PointInTime`](kv_core::PointInTime).
    pub keeps: Keeps,
}

impl Setup {
    /// `policy` on tiny units, inline if the engine supports it.
    pub fn tiny(context: &Context, policy: Policy) -> Self {
        Setup {
            policy,
            background: context.quiet_background(),
            scale: Scale::Tiny,
            limits: Limits::default(),
            keeps: Keeps::Nothing,
        }
    }

    /// The options for the engine's open.
    pub fn options(&self) -> OpenOptions {
        OpenOptions {
            create_if_missing: true,
            read_only: false,
            persistence: self.policy.build(),
            retention: self.keeps.build(),
            limits: self.limits,
            scale: self.scale,
        }
    }
}

/// The place of a store.
#[derive(Debug)]
pub(crate) enum Disk {
    Simulated(SimFs),
    Temporary(TempDir),
}

impl Disk {
    pub(crate) fn temporary() -> std::io::Result<Self> {
        Ok(Disk::Temporary(TempDir::with_prefix("kv-tests-")?))
    }
}

/// A store: its place, its clock, and how to open it.
#[derive(Debug)]
pub struct Rig {
    context: Context,
    disk: Disk,
    dir: PathBuf,
    clock: Option<Arc<ManualClock>>,
    /// How to open the store.
    pub setup: Setup,
}

impl Rig {
    pub(crate) fn new(context: &Context, disk: Disk, setup: Setup) -> Self {
        let dir = match &disk {
            Disk::Simulated(_) => PathBuf::from("/store"),
            Disk::Temporary(dir) => dir.path().join("store"),
        };
        // The manual clock serves inline engines only: an engine thread that sleeps until the clock
        // moves would sleep for ever.
        let inline = setup.background == Background::Inline;
        let clock = inline.then(|| Arc::new(ManualClock::new(1_700_000_000_000)));
        Rig { context: context.clone(), disk, dir, clock, setup }
    }

    /// The same store in this directory of a simulated disk.
    pub(crate) fn in_dir(self, dir: &str) -> Self {
        Rig { dir: PathBuf::from(dir), ..self }
    }

    /// The directory of the store.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file system of the store.
    pub fn fs(&self) -> Arc<dyn Fs> {
        match &self.disk {
            Disk::Simulated(disk) => Arc::new(disk.clone()),
            Disk::Temporary(_) => Arc::new(OsFs),
        }
    }

    /// The environment for the engine's open: file system, clock and background mode.
    pub fn env(&self) -> Env {
        let clock: Arc<dyn Clock> = match &self.clock {
            Some(clock) => Arc::clone(clock) as Arc<dyn Clock>,
            None => Arc::new(SystemClock::new()),
        };
        Env { fs: self.fs(), clock, background: self.setup.background }
    }

    /// Moves the manual clock. Without one, this does nothing.
    pub fn advance(&self, by: Duration) {
        if let Some(clock) = &self.clock {
            clock.advance(by);
        }
    }

    /// Opens the store, or creates it.
    ///
    /// # Errors
    /// The engine's error.
    pub fn open(&self) -> Result<Arc<dyn Engine>> {
        self.open_with(&self.setup.options())
    }

    /// Opens the store with these options.
    ///
    /// # Errors
    /// The engine's error.
    pub fn open_with(&self, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        let calls = self.context.calls();
        let under = calls.begin("open", None);
        let engine = self.context.factory().open(&self.dir, &self.env(), options)?;
        drop(under);
        Ok(Arc::new(Watched::new(engine, calls.clone())))
    }
}

/// Stores for a case.
impl Context {
    /// Inline if the engine supports it, otherwise threads.
    pub fn quiet_background(&self) -> Background {
        if self.factory().capabilities().inline { Background::Inline } else { Background::Threads }
    }

    /// Whether the operating system has a change when its call returns: so the engine says, or so
    /// the policy demands, which inline background work obeys at once.
    pub(crate) fn hands_over(&self, setup: Setup) -> bool {
        let obeys = setup.background == Background::Inline && setup.policy.hands_over();
        obeys || self.factory().capabilities().process_safe
    }

    /// A store that is not open yet: on a simulated disk if the engine supports one, otherwise in a
    /// temporary directory.
    ///
    /// # Errors
    /// The system refuses a temporary directory.
    pub fn rig(&self, setup: Setup) -> std::io::Result<Rig> {
        let disk = if self.factory().capabilities().simulated_fs {
            Disk::Simulated(SimFs::new())
        } else {
            Disk::temporary()?
        };
        Ok(Rig::new(self, disk, setup))
    }

    /// A store that is not open yet, in a temporary directory on the real disk, with background
    /// threads.
    ///
    /// # Errors
    /// The system refuses a temporary directory.
    pub fn real_rig(&self, setup: Setup) -> std::io::Result<Rig> {
        Ok(Rig::new(self, Disk::temporary()?, Setup { background: Background::Threads, ..setup }))
    }

    /// A store that is not open yet, on `disk`. The case must require
    /// [`Need::SimulatedFs`](crate::Need).
    pub fn sim_rig(&self, disk: SimFs, setup: Setup) -> Rig {
        Rig::new(self, Disk::Simulated(disk), setup)
    }
}
