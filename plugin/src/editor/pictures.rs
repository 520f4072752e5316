//! Scrolling log-mels of inputs and remix on one time axis, and the latents in between.

use std::collections::VecDeque;

use egui::{
    Align2, Color32, ColorImage, Context, Mesh, Pos2, Rect, Shape, Stroke, TextureHandle,
    TextureOptions, Ui, pos2, vec2,
};
use model_runtime::Factor;
use model_runtime::scope::{Lane, News};
use model_runtime::transport::Beat;

use super::theme;
use crate::engines::Engine;
use crate::setup::Activation;

/// Frames per texture: a power of two, more than are visible.
const RING: usize = 512;

/// Visible frames: about 5.5 s.
const SEEN: f64 = 236.0;

/// Number of newest frames to hold back, so that the picture scrolls smoothly although frames arrive in groups.
const HELD_BACK: f64 = 6.0;

/// A picture that lags by more than this skips ahead.
const FURTHEST_BEHIND: f64 = 60.0;

/// Appearance of a lane.
struct Look {
    lane: Lane,
    name: &'static str,
    height: f32,
    color: Color32,
    /// Share of the lane to crop at the top.
    cropped: f32,
}

/// The highest bands of a log-mel carry little information.
const MEL_CROPPED: f32 = 0.02;

/// Lanes from top to bottom. Latents of one kind of engine take as much room as those of the other.
const LANES: [Look; 8] = [
    Look {
        lane: Lane::Main,
        name: "Main",
        height: 70.0,
        color: theme::MAIN,
        cropped: MEL_CROPPED,
    },
    Look {
        lane: Lane::Sidechain,
        name: "Sidechain",
        height: 70.0,
        color: theme::SIDECHAIN,
        cropped: MEL_CROPPED,
    },
    Look {
        lane: Lane::Latent(Factor::Harmony),
        name: "Harmony",
        height: 40.0,
        color: theme::REMIX,
        cropped: 0.0,
    },
    Look {
        lane: Lane::Latent(Factor::Rhythm),
        name: "Rhythm",
        height: 22.0,
        color: theme::REMIX,
        cropped: MEL_CROPPED,
    },
    Look {
        lane: Lane::Latent(Factor::Timbre),
        name: "Timbre",
        height: 14.0,
        color: theme::REMIX,
        cropped: 0.0,
    },
    Look {
        lane: Lane::Latent(Factor::Pitch),
        name: "Pitch",
        height: 30.0,
        color: theme::REMIX,
        cropped: 0.0,
    },
    Look {
        lane: Lane::Latent(Factor::Variation),
        name: "Variation",
        height: 14.0,
        color: theme::REMIX,
        cropped: 0.0,
    },
    Look {
        lane: Lane::Remix,
        name: "Remix",
        height: 78.0,
        color: theme::REMIX,
        cropped: MEL_CROPPED,
    },
];

/// Gap between two lanes.
const GAP: f32 = 4.0;

impl Look {
    /// Whether it is shown with an engine.
    fn is_of(&self, engine: Engine) -> bool {
        match self.lane {
            Lane::Latent(factor) => engine.factors().contains(&factor),
            _ => true,
        }
    }
}

/// The pictures, while the editor is open.
#[derive(Default)]
pub struct Pictures {
    strips: Vec<Strip>,
    /// Positions where beats begin, in frames, with their numbers.
    beat_lines: VecDeque<(f64, i64)>,
    last_beat: Option<(u64, Beat)>,
    /// The frame after the newest input frame.
    newest: u64,
    /// The frame at the right edge.
    head: f64,
    last_seconds: f64,
}

/// One lane.
struct Strip {
    texture: TextureHandle,
    /// Colour map from silence to the loudest.
    colors: Vec<Color32>,
    /// The frame after the newest.
    end: u64,
}

impl Strip {
    fn new(ctx: &Context, look: &Look, rows: usize) -> Self {
        let colors = colors(look.color);
        let blank = ColorImage::filled([RING, rows], colors[0]);
        let options = TextureOptions {
            wrap_mode: egui::TextureWrapMode::Repeat,
            ..TextureOptions::LINEAR
        };
        Self {
            texture: ctx.load_texture(look.name, blank, options),
            colors,
            end: 0,
        }
    }

    /// Writes consecutive columns, from `first` on.
    fn write(&mut self, first: u64, columns: &[Vec<u8>]) {
        let rows = columns[0].len();
        let mut at = 0;
        while at < columns.len() {
            let slot = (first as usize + at) % RING;
            let count = (columns.len() - at).min(RING - slot);
            let part = &columns[at..at + count];
            let mut pixels = Vec::with_capacity(count * rows);
            for row in (0..rows).rev() {
                let values = part.iter().map(|column| column[row]);
                pixels.extend(values.map(|value| self.colors[usize::from(value)]));
            }
            let image = ColorImage::new([count, rows], pixels);
            self.texture
                .set_partial([slot, 0], image, self.texture_options());
            at += count;
        }
        self.end = self.end.max(first + columns.len() as u64);
    }

    fn texture_options(&self) -> TextureOptions {
        TextureOptions {
            wrap_mode: egui::TextureWrapMode::Repeat,
            ..TextureOptions::LINEAR
        }
    }
}

/// A colour map for bytes, from dark through a hue to white.
fn colors(hue: Color32) -> Vec<Color32> {
    (0..=255)
        .map(|value| {
            let share = value as f32 / 255.0;
            match share {
                ..0.8 => theme::blend(theme::BACKGROUND, hue, (share / 0.8).powf(3.2)),
                _ => theme::blend(hue, Color32::WHITE, (share - 0.8) / 0.2),
            }
        })
        .collect()
}

impl Pictures {
    /// Shows the pictures of an engine. Returns whether they move.
    pub fn show(
        &mut self,
        ui: &Ui,
        rect: Rect,
        activation: Option<Activation>,
        engine: Engine,
    ) -> bool {
        let frames_hz = activation.map_or(0.0, |activation| activation.frames_hz);
        let moves = self.scroll(ui.input(|input| input.time), frames_hz);
        let mut top = rect.top();
        let shown = || {
            LANES
                .iter()
                .enumerate()
                .filter(|(_, look)| look.is_of(engine))
        };
        for (index, look) in shown() {
            let size = vec2(rect.width(), look.height);
            let band = Rect::from_min_size(pos2(rect.left(), top), size);
            top += look.height + GAP;
            ui.painter().rect_filled(band, 2.0, theme::BACKGROUND);
            if let Some(strip) = self.strips.get(index) {
                self.paint(ui, band, look, strip);
            }
            if matches!(look.lane, Lane::Latent(_)) && !engine.has_latents() {
                ui.painter().text(
                    band.center(),
                    Align2::CENTER_CENTER,
                    "Only with a network.",
                    theme::font(theme::SMALL),
                    theme::DIM,
                );
            }
        }
        self.beats(ui, rect);
        if let Some(activation) = activation.filter(|_| self.newest > 0) {
            let heard = self.head - activation.latency_seconds() * frames_hz;
            heard_line(ui, rect, self.x(rect, heard));
        }
        let mut at = rect.left_top() + vec2(6.0, 3.0);
        for (_, look) in shown() {
            tag(ui, at, Align2::LEFT_TOP, look.name, look.color);
            at.y += look.height + GAP;
        }
        if self.newest == 0 {
            let lines = [
                "Route a second track to Graft’s sidechain, and play.",
                "The spectrograms of inputs and remix appear here.",
            ];
            hint(ui, rect, lines);
        }
        moves
    }

    /// Takes the new data from the worker.
    pub fn take(&mut self, ctx: &Context, news: &News) {
        for (index, look) in LANES.iter().enumerate() {
            let columns = news.columns.iter().filter(|c| c.lane == look.lane);
            let mut run: Vec<Vec<u8>> = Vec::new();
            let mut first = 0;
            for column in columns {
                let is_other = run.first().is_some_and(|c| c.len() != column.values.len());
                if !run.is_empty() && (first + run.len() as u64 != column.frame || is_other) {
                    self.write(ctx, index, first, &run);
                    run.clear();
                }
                if run.is_empty() {
                    first = column.frame;
                }
                run.extend((0..column.frames).map(|_| column.values.clone()));
            }
            if !run.is_empty() {
                self.write(ctx, index, first, &run);
            }
        }
        for &(frame, beat) in &news.beats {
            self.newest = self.newest.max(frame + 1);
            self.beat(frame, beat);
        }
    }

    /// Writes consecutive columns of a lane, from `first` on.
    fn write(&mut self, ctx: &Context, index: usize, first: u64, columns: &[Vec<u8>]) {
        while self.strips.len() <= index {
            let look = &LANES[self.strips.len()];
            self.strips.push(Strip::new(ctx, look, 1));
        }
        let rows = columns[0].len();
        if self.strips[index].texture.size()[1] != rows {
            self.strips[index] = Strip::new(ctx, &LANES[index], rows);
        }
        self.strips[index].write(first, columns);
    }

    /// Records a beat that begins between this frame and the one before.
    fn beat(&mut self, frame: u64, beat: Beat) {
        if let Some((last_frame, last)) = self.last_beat
            && last_frame + 1 == frame
            && beat.is_host
            && last.is_host
        {
            let number = beat.position_beats.floor();
            let step = beat.position_beats - last.position_beats;
            if number > last.position_beats.floor() && step > 0.0 {
                let share = (beat.position_beats - number) / step;
                self.beat_lines
                    .push_back((frame as f64 - share, number as i64));
            }
        }
        self.last_beat = Some((frame, beat));
        while let Some(&(line, _)) = self.beat_lines.front()
            && line + RING as f64 <= frame as f64
        {
            self.beat_lines.pop_front();
        }
    }

    /// Scrolls the picture smoothly. Returns whether it has to scroll further.
    fn scroll(&mut self, now_seconds: f64, frames_hz: f64) -> bool {
        let passed = (now_seconds - self.last_seconds).clamp(0.0, 0.2);
        self.last_seconds = now_seconds;
        let behind = self.newest as f64 - self.head;
        if behind > FURTHEST_BEHIND {
            self.head = self.newest as f64 - HELD_BACK;
            return true;
        }
        let hurry = 1.0 + ((behind - HELD_BACK) / 12.0).clamp(-0.5, 1.0);
        let before = self.head;
        self.head = (self.head + hurry * passed * frames_hz).min(self.newest as f64);
        self.head > before
    }

    fn x(&self, rect: Rect, frame: f64) -> f32 {
        let share = 1.0 - (self.head - frame) / SEEN;
        egui::lerp(rect.x_range(), share as f32)
    }

    /// Draws the available frames of a lane.
    fn paint(&self, ui: &Ui, band: Rect, look: &Look, strip: &Strip) {
        // A texel's colour is at the middle of its frame. Stop there, so that filtering does not blend the newest frame
        // with missing ones.
        let end = (strip.end as f64 - 0.5).min(self.head);
        let start = (self.head - SEEN)
            .max(strip.end as f64 - RING as f64 + 1.0)
            .max(0.5);
        if end <= start {
            return;
        }
        let rect = Rect::from_min_max(
            pos2(self.x(band, start), band.top()),
            pos2(self.x(band, end), band.bottom()),
        );
        let uv = |frame: f64| ((frame % RING as f64) / RING as f64) as f32;
        let left = uv(start);
        let uv = Rect::from_min_max(
            pos2(left, look.cropped),
            pos2(left + ((end - start) / RING as f64) as f32, 1.0),
        );
        let mut mesh = Mesh::with_texture(strip.texture.id());
        mesh.add_rect_with_uv(rect, uv, Color32::WHITE);
        ui.painter().add(Shape::mesh(mesh));
    }

    fn beats(&self, ui: &Ui, rect: Rect) {
        for &(frame, number) in &self.beat_lines {
            let x = self.x(rect, frame);
            if !rect.x_range().contains(x) {
                continue;
            }
            let is_bar = number.rem_euclid(4) == 0;
            let alpha = if is_bar { 90 } else { 36 };
            let stroke = Stroke::new(1.0, Color32::from_white_alpha(alpha));
            ui.painter().vline(x, rect.y_range(), stroke);
        }
    }
}

/// Marks the playback position: everything to the left of the line has played.
fn heard_line(ui: &Ui, rect: Rect, x: f32) {
    ui.painter()
        .vline(x, rect.y_range(), Stroke::new(1.5, theme::TEXT));
    let at = pos2(x - 6.0, rect.bottom() - 4.0);
    tag(ui, at, Align2::RIGHT_BOTTOM, "heard now", theme::TEXT);
}

/// Text on a dark background.
fn tag(ui: &Ui, at: Pos2, align: Align2, text: &str, color: Color32) {
    let painter = ui.painter();
    let galley = painter.layout_no_wrap(text.to_owned(), theme::bold(theme::SMALL), color);
    let place = align.anchor_size(at, galley.size());
    painter.rect_filled(
        place.expand2(vec2(3.0, 1.0)),
        2.0,
        Color32::from_black_alpha(170),
    );
    painter.galley(place.min, galley, color);
}

/// A hint for the user in place of a picture.
fn hint(ui: &Ui, rect: Rect, [first, second]: [&str; 2]) {
    let ground = Rect::from_center_size(rect.center(), vec2(380.0, 76.0));
    let painter = ui.painter();
    painter.rect_filled(ground, 6.0, theme::PANEL);
    painter.text(
        ground.center() - vec2(0.0, 12.0),
        Align2::CENTER_CENTER,
        first,
        theme::bold(14.0),
        theme::TEXT,
    );
    painter.text(
        ground.center() + vec2(0.0, 12.0),
        Align2::CENTER_CENTER,
        second,
        theme::font(theme::NORMAL),
        theme::DIM,
    );
}
