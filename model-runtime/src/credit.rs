//! How long the audio thread may wait for a late window.
//!
//! Hosts do not always say that they are rendering, and some say it one render late, so the answer
//! does not depend on what they declare. A host that hands out blocks faster than they last is ahead
//! of real time, and only by that much may the audio thread wait. In live playback that is nothing;
//! in a render it is always enough.

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

/// Audio thread: how far the host is ahead of the clock.
///
/// At each block, `credit = max(0, credit + last block's duration - time since the last block)`.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    seconds: f64,
    last_block: Option<Block>,
}

#[derive(Debug)]
struct Block {
    began: Duration,
    seconds: f64,
}

impl Credit {
    /// Accounts for a block of `block_seconds` that begins at `now`.
    pub(crate) fn begin_block(&mut self, now: Duration, block_seconds: f64) {
        if let Some(last) = &self.last_block {
            let elapsed = now.saturating_sub(last.began).as_secs_f64();
            let kept = self.seconds * (1.0 - elapsed / LEAK_SECONDS).max(0.0);
            self.seconds = (kept + last.seconds - elapsed).max(0.0);
        }
        self.last_block = Some(Block {
            began: now,
            seconds: block_seconds,
        });
    }

    /// Until when the audio thread may wait during the block that began last.
    pub(crate) fn deadline(&self) -> Duration {
        let began = self.last_block.as_ref().map_or(Duration::ZERO, |b| b.began);
        began + Duration::from_secs_f64(self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_SECONDS: f64 = 0.01;

    /// Credit after ten seconds of blocks that begin `period_seconds` apart, give or take
    /// `jitter_seconds`.
    fn credit_after(period_seconds: f64, jitter_seconds: f64) -> f64 {
        let mut credit = Credit::default();
        for block in 0..1000 {
            let jitter = if block % 2 == 0 { jitter_seconds } else { 0.0 };
            let now = Duration::from_secs_f64(f64::from(block) * period_seconds + jitter);
            credit.begin_block(now, BLOCK_SECONDS);
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
        let mut credit = Credit::default();
        let mut now = 0.0;
        let mut play = |credit: &mut Credit, blocks: usize, period_seconds: f64| {
            for _ in 0..blocks {
                credit.begin_block(Duration::from_secs_f64(now), BLOCK_SECONDS);
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
        let mut credit = Credit::default();
        let now = Duration::from_secs(7);
        credit.begin_block(now, BLOCK_SECONDS);
        assert_eq!(credit.deadline(), now);
    }
}
