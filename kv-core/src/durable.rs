use crate::{Engine, Lsn, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Waits for an LSN to become durable. From [`EngineExt::durable`](crate::EngineExt::durable).
#[derive(Debug)]
#[must_use = "a future waits for nothing until it is polled"]
pub struct Durable<'a, E: ?Sized> {
    engine: &'a E,
    lsn: Lsn,
    /// The engine took the LSN for one to wait for.
    waiting: bool,
}

impl<'a, E: Engine + ?Sized> Durable<'a, E> {
    pub(crate) fn new(engine: &'a E, lsn: Lsn) -> Self {
        Durable { engine, lsn, waiting: false }
    }
}

impl<E: Engine + ?Sized> Future for Durable<'_, E> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // `close` makes changes durable before it refuses calls: then this future has its answer,
        // and no call is needed.
        if self.waiting && self.engine.durable_lsn() >= self.lsn {
            return Poll::Ready(Ok(()));
        }
        let answer = self.engine.poll_durable(self.lsn, cx);
        self.waiting = answer.is_pending();
        answer
    }
}
