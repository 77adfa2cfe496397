//! A policy that notes every question, and answers as the case says.

use crate::sim::SimFs;
use kv_core::{Acknowledge, Action, Decision, LossWindow, Pending, PersistencePolicy};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One question to the policy, and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) pending: Pending,
    pub(crate) answer: Decision,
    /// The number of changes to the disk before it, if the case watches the disk.
    pub(crate) mutations: u64,
}

type Script = Box<dyn FnMut(&Pending) -> Decision + Send>;

/// A policy that notes every question, and answers by a script.
pub(crate) struct Recorder {
    acknowledge: Acknowledge,
    state: Mutex<State>,
}

struct State {
    script: Script,
    disk: Option<SimFs>,
    questions: Vec<Question>,
}

impl Recorder {
    /// A policy that answers as `script` says.
    pub(crate) fn new(script: impl FnMut(&Pending) -> Decision + Send + 'static) -> Self {
        let state = State { script: Box::new(script), disk: None, questions: Vec::new() };
        Recorder { acknowledge: Acknowledge::WhenVisible, state: Mutex::new(state) }
    }

    /// A policy that always takes this action, and names no time.
    pub(crate) fn always(action: Action) -> Self {
        Recorder::new(move |_| Decision::now(action))
    }

    /// The same with this acknowledgement.
    pub(crate) fn acknowledging(self, acknowledge: Acknowledge) -> Self {
        Recorder { acknowledge, ..self }
    }

    /// From now on the policy notes the changes to `disk` before each question.
    pub(crate) fn watch(&self, disk: &SimFs) {
        self.state().disk = Some(disk.clone());
    }

    /// From now on the policy answers as `script` says.
    pub(crate) fn answer(&self, script: impl FnMut(&Pending) -> Decision + Send + 'static) {
        self.state().script = Box::new(script);
    }

    /// The questions since the last call, in their order.
    pub(crate) fn take(&self) -> Vec<Question> {
        std::mem::take(&mut self.state().questions)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PersistencePolicy for Recorder {
    fn decide(&self, pending: &Pending) -> Decision {
        let mut state = self.state();
        let mutations = state.disk.as_ref().map_or(0, SimFs::mutations);
        let answer = (state.script)(pending);
        state.questions.push(Question { pending: *pending, answer, mutations });
        answer
    }

    fn acknowledge(&self) -> Acknowledge {
        self.acknowledge
    }

    fn loss_window(&self) -> LossWindow {
        LossWindow::default()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("acknowledge", &self.acknowledge).finish_non_exhaustive()
    }
}

/// Hold, and ask again after this time.
pub(crate) const fn hold_for(pause: Duration) -> Decision {
    Decision { action: Action::Hold, ask_again_in: Some(pause) }
}
