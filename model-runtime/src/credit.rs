//! How long the audio thread may wait for a late window.
//!
//! Hosts do not always say that they are rendering, and some say it one render late, so the answer
//! does not depend on what they declare. A host that hands out blocks faster than they last is ahead
//! of real time, and only by that much may the audio thread wait. In live playback that is nothing;
//! in a render it is always enough.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time that the audio thread sees; a test puts its own in place.
pub trait Clock: Send {
    /// Time since some fixed moment. Never goes back.
    fn now(&self) -> Duration;

    /// Gives the processor away for about `duration`.
    fn sleep(&self, duration: Duration);
}

/// The system's monotonic clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// Credit leaks away with this time constant, so that a host that stops rendering and plays live
/// owes nothing after a while, and so that a sound card that runs slightly faster than the system
/// clock earns next to nothing.
const LEAK_SECONDS: f64 = 10.0;

/// Calls that are remembered one by one; the oldest are merged beyond that.
const RECENT_CALLS: usize = 256;

/// Rounding of durations, in seconds.
const ROUNDING_SECONDS: f64 = 1e-9;

/// Audio thread: how far the host is ahead of the clock.
///
/// At each call, `credit = max(0, credit + last call's duration - time since the last call)`. The plugin framework cuts a host
/// block into several calls where parameters change, so even a live host is ahead of the clock within a block. Calls that may
/// belong to the same block as the present one therefore do not count: as many of the last ones as fit the longest block with
/// it.
#[derive(Debug)]
pub(crate) struct Credit {
    max_block_seconds: f64,
    seconds: f64,
    present: Option<Call>,
    /// Durations of the calls that may belong to the present block, the oldest first.
    same_block: VecDeque<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    began: Duration,
    seconds: f64,
}

impl Credit {
    /// No credit, for a host with blocks of up to `max_block_seconds`. Allocates; all else is for the audio thread.
    pub(crate) fn new(max_block_seconds: f64) -> Self {
        Self {
            max_block_seconds,
            seconds: 0.0,
            present: None,
            same_block: VecDeque::with_capacity(RECENT_CALLS),
        }
    }

    /// Starts again without credit.
    pub(crate) fn reset(&mut self) {
        self.seconds = 0.0;
        self.present = None;
        self.same_block.clear();
    }

    /// Accounts for a call of `call_seconds` that begins at `now`.
    pub(crate) fn begin_call(&mut self, now: Duration, call_seconds: f64) {
        if let Some(last) = self.present {
            let elapsed = now.saturating_sub(last.began).as_secs_f64();
            let kept = self.seconds * (1.0 - elapsed / LEAK_SECONDS).max(0.0);
            self.seconds = (kept + last.seconds - elapsed).max(0.0);
            if self.same_block.len() == RECENT_CALLS {
                let oldest = self.same_block.pop_front().unwrap_or(0.0);
                self.same_block[0] += oldest;
            }
            self.same_block.push_back(last.seconds);
        }
        let most = self.max_block_seconds - call_seconds + ROUNDING_SECONDS;
        while self.same_block_seconds() > most && self.same_block.pop_front().is_some() {}
        self.present = Some(Call {
            began: now,
            seconds: call_seconds,
        });
    }

    /// Until when the audio thread may wait during the present call.
    pub(crate) fn deadline(&self) -> Duration {
        let began = self.present.map_or(Duration::ZERO, |call| call.began);
        let credit = self.seconds - self.same_block_seconds();
        began + Duration::from_secs_f64(credit.max(0.0))
    }

    fn same_block_seconds(&self) -> f64 {
        self.same_block.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_SECONDS: f64 = 0.01;

    /// Credit after ten seconds of blocks that begin `period_seconds` apart, give or take
    /// `jitter_seconds`.
    fn credit_after(period_seconds: f64, jitter_seconds: f64) -> f64 {
        let mut credit = Credit::new(BLOCK_SECONDS);
        for block in 0..1000 {
            let jitter = if block % 2 == 0 { jitter_seconds } else { 0.0 };
            let now = Duration::from_secs_f64(f64::from(block) * period_seconds + jitter);
            credit.begin_call(now, BLOCK_SECONDS);
        }
        credit.seconds
    }

    #[test]
    fn a_render_earns_what_it_is_ahead() {
        let seconds = credit_after(BLOCK_SECONDS / 2.0, 0.0);
        assert!((3.0..5.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn live_playback_earns_no_more_than_its_jitter() {
        let seconds = credit_after(BLOCK_SECONDS, 0.002);
        assert!(seconds <= 0.003, "{seconds}");
    }

    #[test]
    fn a_slightly_fast_sound_card_earns_less_than_a_millisecond() {
        let seconds = credit_after(BLOCK_SECONDS * (1.0 - 50e-6), 0.0);
        assert!(seconds < 0.001, "{seconds}");
    }

    #[test]
    fn credit_of_a_render_is_gone_after_a_minute_of_playback() {
        let mut credit = Credit::new(BLOCK_SECONDS);
        let mut now = 0.0;
        let mut play = |credit: &mut Credit, blocks: usize, period_seconds: f64| {
            for _ in 0..blocks {
                credit.begin_call(Duration::from_secs_f64(now), BLOCK_SECONDS);
                now += period_seconds;
            }
        };
        play(&mut credit, 6000, 0.001);
        assert!(credit.seconds > 5.0);
        play(&mut credit, 6000, BLOCK_SECONDS);
        assert!(credit.seconds < 0.2, "{}", credit.seconds);
    }

    #[test]
    fn the_first_block_may_not_wait() {
        let mut credit = Credit::new(BLOCK_SECONDS);
        let now = Duration::from_secs(7);
        credit.begin_call(now, BLOCK_SECONDS);
        assert_eq!(credit.deadline(), now);
    }
}
