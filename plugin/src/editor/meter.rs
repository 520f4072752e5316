//! Level meters: peak and hold.

use egui::{Color32, Rect, Ui, pos2};

use super::theme;

const BOTTOM_DB: f32 = -54.0;
const TOP_DB: f32 = 6.0;

/// How long a peak is held, and how fast it falls afterwards.
const HOLD_SECONDS: f64 = 1.5;
const FALL_DB_PER_SECOND: f64 = 20.0;

/// The held peak of a level.
#[derive(Default)]
pub struct Hold {
    sides: [Held; 2],
}

#[derive(Clone, Copy)]
struct Held {
    db: f64,
    since_seconds: f64,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            db: f64::from(BOTTOM_DB),
            since_seconds: 0.0,
        }
    }
}

impl Held {
    /// Takes a new peak and returns the held one.
    fn show(&mut self, peak_db: f64, now_seconds: f64) -> f64 {
        let over = (now_seconds - self.since_seconds - HOLD_SECONDS).max(0.0);
        let fallen = self.db - FALL_DB_PER_SECOND * over;
        if peak_db >= fallen {
            *self = Self {
                db: peak_db,
                since_seconds: now_seconds,
            };
        }
        peak_db.max(fallen)
    }
}

/// Converts a gain to dB.
pub fn to_db(gain: f32) -> f32 {
    20.0 * gain.max(1e-9).log10()
}

/// Shows the peaks of left and right, after a gain.
pub fn meter(ui: &Ui, rect: Rect, peaks: [f32; 2], gain: f32, hold: &mut Hold, color: Color32) {
    let painter = ui.painter();
    let now_seconds = ui.input(|input| input.time);
    let height = |db: f32| {
        let share = (db - BOTTOM_DB) / (TOP_DB - BOTTOM_DB);
        egui::lerp(rect.bottom()..=rect.top(), share.clamp(0.0, 1.0))
    };
    let gap = 2.0;
    let width = 0.5 * (rect.width() - gap);
    let mut falls = false;
    for (side, peak) in peaks.into_iter().enumerate() {
        let left = rect.left() + side as f32 * (width + gap);
        let bar =
            |bottom: f32, top: f32| Rect::from_min_max(pos2(left, top), pos2(left + width, bottom));
        painter.rect_filled(bar(rect.bottom(), rect.top()), 1.5, theme::BACKGROUND);
        let db = to_db(peak * gain);
        painter.rect_filled(bar(rect.bottom(), height(db.min(0.0))), 1.5, color);
        if db > 0.0 {
            painter.rect_filled(bar(height(0.0), height(db)), 1.5, theme::WARNING);
        }
        let held_db = hold.sides[side].show(f64::from(db), now_seconds) as f32;
        if held_db > BOTTOM_DB {
            falls = true;
            let top = height(held_db);
            let color = if held_db > 0.0 {
                theme::WARNING
            } else {
                theme::TEXT
            };
            painter.rect_filled(bar(top + 1.5, top), 0.0, color);
        }
    }
    painter.hline(rect.x_range(), height(0.0), (1.0, theme::LINE));
    if falls {
        ui.ctx().request_repaint_after_secs(0.033);
    }
}
