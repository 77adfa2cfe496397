use fastrand::Rng;
use std::fmt;

/// How a power cut treats unsynced data and names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerCut {
    seed: u64,
}

impl PowerCut {
    /// Everything unsynced is lost.
    pub const LOSE_ALL: PowerCut = PowerCut { seed: 0 };
    /// Everything unsynced is kept.
    pub const KEEP_ALL: PowerCut = PowerCut { seed: 1 };

    /// Draws the fate of each sector, length and directory entry from `seed`; 0 is
    /// [`LOSE_ALL`](PowerCut::LOSE_ALL) and 1 is [`KEEP_ALL`](PowerCut::KEEP_ALL).
    pub const fn seeded(seed: u64) -> Self {
        PowerCut { seed }
    }

    /// The seed of the draws.
    pub const fn seed(self) -> u64 {
        self.seed
    }

    pub(super) fn dice(self) -> Dice {
        let mut rng = Rng::with_seed(self.seed);
        let (data, names) = match self.seed {
            0 => (0, 0),
            1 => (100, 100),
            // Even odds would hardly ever keep or lose nearly all.
            _ => {
                let mut odds = || *rng.choice(&[0, 10, 50, 90, 100]).unwrap_or(&50);
                (odds(), odds())
            }
        };
        Dice { rng, data_percent: data, names_percent: names }
    }
}

impl fmt::Display for PowerCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seed {
            0 => f.write_str("all unsynced lost"),
            1 => f.write_str("all unsynced kept"),
            seed => write!(f, "drawn from seed {seed}"),
        }
    }
}

/// The outcome for one unsynced sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Lost,
    /// Lost, and the medium shows its older content there, if the file is new there.
    Stale,
    /// The first bytes are new, the others are old.
    Torn(usize),
}

/// The random draws of one power cut.
#[derive(Debug)]
pub(super) struct Dice {
    rng: Rng,
    data_percent: u8,
    names_percent: u8,
}

impl Dice {
    pub(super) fn keeps_name(&mut self) -> bool {
        self.rng.u8(0..100) < self.names_percent
    }

    pub(super) fn sector(&mut self, sector_len: usize) -> Fate {
        let partial = !matches!(self.data_percent, 0 | 100);
        if partial && self.rng.u8(0..8) == 0 {
            return Fate::Torn(self.rng.usize(1..sector_len));
        }
        match self.rng.u8(0..100) < self.data_percent {
            true => Fate::Kept,
            false if partial && self.rng.u8(0..4) == 0 => Fate::Stale,
            false => Fate::Lost,
        }
    }

    /// A length that the file had, or one between: `oldest` is the synced one, `newest` the last.
    pub(super) fn len(&mut self, oldest: usize, between: &[usize], newest: usize) -> usize {
        match self.data_percent {
            0 => return oldest,
            100 => return newest,
            _ => {}
        }
        match self.rng.u8(0..4) {
            0 => oldest,
            1 => newest,
            2 => self.rng.choice(between).copied().unwrap_or(newest),
            _ => self.rng.usize(oldest.min(newest)..=oldest.max(newest)),
        }
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        if len == 0 { 0 } else { self.rng.usize(0..len) }
    }
}
