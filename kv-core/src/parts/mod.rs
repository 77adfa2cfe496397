//! Parts for engine authors: the pieces of an engine that the [contract](crate::Engine) determines,
//! so that each is written and proved once.
//!
//! | a question that the contract asks | the part that answers it |
//! |---|---|
//! | how far are changes durable, and how long have the others waited? | [`Progress`], with [`Position`] |
//! | when does the background thread dump? | [`Pacing`] with [`Dumper`]; its parts are [`Wake`], [`NextAsk`] and [`Wakers`] |
//! | which of several callers dumps for all? | [`Leadership`]: group commit |
//! | does the engine take changes? | [`Health`]: poisoned, closed, read only, forked |
//! | which global values may a forked child use? | [`PerProcess`] |
//! | closing the store, and its threads | [`Life`], [`Threads`], [`AtExit`] |
//! | is the directory still the store's? | [`StoreLock`] |
//! | how does a full disk become usable again? | [`Reserve`] |
//! | which state does a past LSN, time or point name? | [`Timeline`] |
//! | may a new store or a backup begin here? | [`Destination`]; [`refuse_unless_empty`] and [`refuse_unless_backup`] |
//! | how is a past state read? | [`PastState`], over an engine's [`Pairs`] |
//! | which merges keep the number of segments bounded? | [`MANY_SEGMENTS`], [`MERGED_SEGMENT_BYTES`] |
//!
//! An engine uses as many of them as it likes: the contract names none.

mod at_exit;
mod destination;
mod health;
mod leadership;
mod life;
mod next_ask;
mod pacing;
mod past_state;
mod per_process;
mod process;
mod progress;
mod reserve;
mod store_lock;
mod threads;
mod timeline;
mod wake;
mod wakers;

pub use crate::compaction::{MANY_SEGMENTS, MERGED_SEGMENT_BYTES};
pub use at_exit::{AtExit, call_at_exit};
pub use destination::{Destination, refuse_unless_backup, refuse_unless_empty};
pub use health::{Health, PoisonOnPanic};
pub use leadership::{Leadership, Leading};
pub use life::Life;
pub use next_ask::NextAsk;
pub use pacing::{Dumper, Pacing, ThreadWatch};
pub use past_state::{Pairs, PastState};
pub use per_process::PerProcess;
pub use progress::{Position, Progress};
pub use reserve::Reserve;
pub use store_lock::StoreLock;
pub use threads::Threads;
pub use timeline::Timeline;
pub use wake::Wake;
pub use wakers::{WakeAllOnDrop, Wakers};
