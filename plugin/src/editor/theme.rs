//! Colours, fonts and style.
//!
//! Three hues that colour-blind users can also tell apart: blue for the main input, orange for the sidechain (both from
//! Okabe and Ito's palette) and near white for the remix. No information is carried by hue alone.

use std::sync::Arc;

use egui::style::{Selection, WidgetVisuals};
use egui::{
    Color32, Context, CornerRadius, FontData, FontDefinitions, FontFamily, FontId, Margin, Rgba,
    Shadow, Stroke, TextStyle, Theme, Visuals, vec2,
};

/// Background of the window.
pub const BACKGROUND: Color32 = Color32::from_rgb(0x11, 0x13, 0x17);
/// Background of a group of controls.
pub const PANEL: Color32 = Color32::from_rgb(0x1A, 0x1D, 0x23);
/// A widget that can be pressed or turned.
pub const RAISED: Color32 = Color32::from_rgb(0x2A, 0x2F, 0x38);
/// The same under the pointer.
pub const HOVERED: Color32 = Color32::from_rgb(0x37, 0x3E, 0x49);
/// Lines and empty tracks.
pub const LINE: Color32 = Color32::from_rgb(0x3A, 0x41, 0x4C);
/// Text: names and values.
pub const TEXT: Color32 = Color32::from_rgb(0xEC, 0xEE, 0xF2);
/// Secondary text.
pub const DIM: Color32 = Color32::from_rgb(0xA2, 0xAB, 0xB8);
/// The main input.
pub const MAIN: Color32 = Color32::from_rgb(0x56, 0xB4, 0xE9);
/// The sidechain.
pub const SIDECHAIN: Color32 = Color32::from_rgb(0xF2, 0xA1, 0x2E);
/// The remix.
pub const REMIX: Color32 = Color32::from_rgb(0xEF, 0xE9, 0xF7);
/// Warnings; always shown together with text.
pub const WARNING: Color32 = Color32::from_rgb(0xFF, 0x7A, 0x66);

/// Height of secondary text.
pub const SMALL: f32 = 10.5;
/// Height of text.
pub const NORMAL: f32 = 12.0;

const SEMI_BOLD: &str = "Inter SemiBold";

/// The font at a height in points.
pub fn font(height: f32) -> FontId {
    FontId::proportional(height)
}

/// The bold font.
pub fn bold(height: f32) -> FontId {
    FontId::new(height, FontFamily::Name(SEMI_BOLD.into()))
}

/// Blends two colours in linear light, `share` of the way to `b`.
pub fn blend(a: Color32, b: Color32, share: f32) -> Color32 {
    let (a, b) = (Rgba::from(a), Rgba::from(b));
    Color32::from(a * (1.0 - share) + b * share)
}

/// Installs fonts and style.
pub fn install(ctx: &Context) {
    ctx.set_fonts(fonts());
    ctx.set_theme(Theme::Dark);
    ctx.options_mut(|options| options.zoom_with_keyboard = false);
    ctx.style_mut_of(Theme::Dark, |style| {
        style.text_styles = [
            (TextStyle::Small, font(SMALL)),
            (TextStyle::Body, font(NORMAL)),
            (TextStyle::Button, font(NORMAL)),
            (TextStyle::Monospace, font(NORMAL)),
            (TextStyle::Heading, bold(15.0)),
        ]
        .into();
        style.spacing.item_spacing = vec2(6.0, 5.0);
        style.spacing.button_padding = vec2(8.0, 4.0);
        style.spacing.tooltip_width = 260.0;
        style.spacing.menu_margin = Margin::same(6);
        style.interaction.tooltip_delay = 0.6;
        style.interaction.selectable_labels = false;
        style.visuals = visuals();
    });
}

fn fonts() -> FontDefinitions {
    let mut fonts = FontDefinitions::empty();
    let mut add = |name: &str, families: &[FontFamily], data: &'static [u8]| {
        let data = FontData::from_static(data);
        fonts.font_data.insert(name.to_owned(), Arc::new(data));
        for family in families {
            fonts.families.insert(family.clone(), vec![name.to_owned()]);
        }
    };
    add(
        "Inter",
        &[FontFamily::Proportional, FontFamily::Monospace],
        include_bytes!("../../../assets/fonts/Inter-Regular-subset.otf"),
    );
    add(
        SEMI_BOLD,
        &[FontFamily::Name(SEMI_BOLD.into())],
        include_bytes!("../../../assets/fonts/Inter-SemiBold-subset.otf"),
    );
    fonts
}

fn visuals() -> Visuals {
    let mut visuals = Visuals::dark();
    let radius = CornerRadius::same(4);
    let widget = |fill: Color32, text: Color32, outline: Color32| WidgetVisuals {
        bg_fill: fill,
        weak_bg_fill: fill,
        bg_stroke: Stroke::new(1.0, outline),
        corner_radius: radius,
        fg_stroke: Stroke::new(1.0, text),
        expansion: 0.0,
    };
    visuals.widgets.noninteractive = widget(PANEL, TEXT, LINE);
    visuals.widgets.inactive = widget(RAISED, TEXT, RAISED);
    visuals.widgets.hovered = widget(HOVERED, TEXT, HOVERED);
    visuals.widgets.active = widget(HOVERED, TEXT, REMIX);
    visuals.widgets.open = widget(HOVERED, TEXT, LINE);
    visuals.selection = Selection {
        bg_fill: blend(PANEL, MAIN, 0.4),
        stroke: Stroke::new(1.0, TEXT),
    };
    visuals.panel_fill = BACKGROUND;
    visuals.window_fill = RAISED;
    visuals.window_stroke = Stroke::new(1.0, LINE);
    visuals.window_corner_radius = radius;
    visuals.menu_corner_radius = radius;
    visuals.extreme_bg_color = BACKGROUND;
    visuals.weak_text_color = Some(DIM);
    visuals.warn_fg_color = WARNING;
    visuals.error_fg_color = WARNING;
    visuals.popup_shadow = Shadow {
        offset: [0, 3],
        blur: 10,
        spread: 0,
        color: Color32::from_black_alpha(120),
    };
    visuals
}
