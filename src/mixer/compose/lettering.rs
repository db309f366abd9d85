//! Text: lines in any script, drawn once as sprites.
//!
//! Owns: fonts. Does not know: tiles. In: a text. Out: a sprite. The shipped fonts are always available: letters and
//! emoji. The fonts of the machine are loaded when a name first needs a letter that the shipped fonts lack. This takes
//! longer than a tick, so a thread does it, once per process; until then such names are not drawn.

use std::sync::{Arc, OnceLock};
use std::thread;

use cosmic_text::{
    Align, Attrs, Buffer, Color, Ellipsize, EllipsizeHeightLimit, Fallback, Family, FeatureTag, FontFeatures,
    FontSystem, Metrics, PlatformFallback, Shaping, SwashCache, Weight, Wrap, fontdb,
};
use unicode_script::Script;
use unicode_segmentation::UnicodeSegmentation;

use super::raster::{Raster, Rgb};

/// Inter (SIL Open Font License), for names and initials.
const FONT: &[u8] = include_bytes!("../../../assets/fonts/Inter-Bold.otf");
const FAMILY: &str = "Inter";
/// Twemoji (CC BY 4.0) as a font of coloured outlines.
const EMOJI_FONT: &[u8] = include_bytes!("../../../assets/fonts/TwemojiMozilla.ttf");
const EMOJI_FAMILY: &str = "Twemoji Mozilla";
/// Variation selector 16: the character before it is an emoji.
const EMOJI_PRESENTATION: char = '\u{fe0f}';

/// The usual order of fonts, with the shipped emoji before the symbols of other fonts.
struct EmojiFirst;

impl Fallback for EmojiFirst {
    fn common_fallback(&self) -> &[&'static str] {
        static FAMILIES: OnceLock<Vec<&'static str>> = OnceLock::new();
        FAMILIES.get_or_init(|| [&[EMOJI_FAMILY][..], PlatformFallback.common_fallback()].concat())
    }

    fn forbidden_fallback(&self) -> &[&'static str] {
        PlatformFallback.forbidden_fallback()
    }

    fn script_fallback(&self, script: Script, locale: &str) -> &[&'static str] {
        PlatformFallback.script_fallback(script, locale)
    }
}

fn font_system(database: fontdb::Database) -> FontSystem {
    FontSystem::new_with_locale_and_db_and_fallback("en-US".into(), database, EmojiFirst)
}

/// The shipped font and the fonts of the machine, once these are loaded; the first call begins to load them.
fn machine_fonts() -> Option<&'static fontdb::Database> {
    static BEGUN: OnceLock<()> = OnceLock::new();
    static FOUND: OnceLock<fontdb::Database> = OnceLock::new();
    BEGUN.get_or_init(|| {
        let look = || {
            let mut database = shipped_font();
            database.load_system_fonts();
            // Only this thread sets it.
            let _ = FOUND.set(database);
        };
        if let Err(error) = thread::Builder::new().name("fonts".into()).spawn(look) {
            tracing::error!(%error, "cannot load system fonts: only Latin, Greek and Cyrillic names are drawn");
        }
    });
    FOUND.get()
}

fn shipped_font() -> fontdb::Database {
    let mut database = fontdb::Database::new();
    database.load_font_source(fontdb::Source::Binary(Arc::new(FONT)));
    for id in database.load_font_source(fontdb::Source::Binary(Arc::new(EMOJI_FONT))) {
        let Some(mut face) = database.face(id).cloned() else { continue };
        // Only fonts of the requested weight are considered before all others.
        face.weight = Weight::BOLD;
        database.remove_face(id);
        database.push_face_info(face);
    }
    database
}

/// State of the fonts of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    /// Not needed yet.
    Unneeded,
    /// Being loaded.
    Awaited,
    /// Loaded.
    There,
}

/// How a text is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Height of the letters.
    pub(super) pixels: f32,
    /// Longer lines are wrapped at words, and the last one is truncated.
    pub(super) width: f32,
    /// Most lines.
    pub(super) lines: usize,
    /// Lines are centred, not left-aligned.
    pub(super) centred: bool,
    /// All digits have the same width.
    pub(super) tabular: bool,
}

impl Style {
    /// One line.
    pub(super) const fn line(pixels: f32, width: f32) -> Self {
        Self { pixels, width, lines: 1, centred: false, tabular: false }
    }
}

/// Draws text.
pub(super) struct Lettering {
    fonts: FontSystem,
    cache: SwashCache,
    machine: Machine,
}

impl Lettering {
    pub(super) fn new() -> Self {
        Self { fonts: font_system(shipped_font()), cache: SwashCache::new(), machine: Machine::Unneeded }
    }

    /// Whether the fonts of the machine were loaded since the last call: names that were not drawn can be drawn now.
    pub(super) fn learned(&mut self) -> bool {
        if self.machine != Machine::Awaited {
            return false;
        }
        let Some(found) = machine_fonts() else { return false };
        // Another font system: the old one has cached that no font fits.
        self.fonts = font_system(found.clone());
        self.cache = SwashCache::new();
        self.machine = Machine::There;
        true
    }

    /// Whether the fonts of the machine are being loaded.
    pub(super) fn is_waiting(&self) -> bool {
        self.machine == Machine::Awaited
    }

    /// One line of text, truncated with an ellipsis at `width` pixels; None if nothing is visible, or fonts are being
    /// loaded. The picture is as wide as the text and one line high.
    pub(super) fn line(&mut self, text: &str, pixels: f32, width: f32, color: Rgb) -> Option<Raster> {
        self.paragraph(text, Style::line(pixels, width), color)
    }

    /// The number of lines of a text that is wrapped at words.
    pub(super) fn lines(&mut self, text: &str, pixels: f32, width: f32) -> usize {
        self.shape(text, Style { lines: usize::MAX, ..Style::line(pixels, width) }).layout_runs().count()
    }

    /// The width of a text in one line.
    pub(super) fn width(&mut self, text: &str, style: Style) -> f32 {
        let style = Style { width: f32::MAX, lines: usize::MAX, centred: false, ..style };
        self.shape(text, style).layout_runs().map(|run| run.line_w).fold(0.0, f32::max)
    }

    /// The same as [`line`](Self::line), with several lines.
    pub(super) fn paragraph(&mut self, text: &str, style: Style, color: Rgb) -> Option<Raster> {
        let mut buffer = self.shape(text, style);
        let missing = buffer.layout_runs().any(|run| run.glyphs.iter().any(|glyph| glyph.glyph_id == 0));
        if missing && self.machine != Machine::There {
            self.machine = Machine::Awaited;
            if !self.learned() {
                return None;
            }
            buffer = self.shape(text, style);
        }
        let glyphs = || buffer.layout_runs().flat_map(|run| run.glyphs.iter());
        let left = glyphs().map(|glyph| glyph.x).reduce(f32::min)?.floor();
        let right = glyphs().map(|glyph| glyph.x + glyph.w).reduce(f32::max)?.ceil();
        if right <= left {
            return None;
        }
        let height = buffer.metrics().line_height * buffer.layout_runs().count() as f32;
        let mut raster = Raster::new((right - left) as usize, height.ceil() as usize);
        let [r, g, b] = color;
        buffer.draw(&mut self.fonts, &mut self.cache, Color::rgb(r, g, b), |x, y, w, h, color| {
            let (r, g, b, alpha) = color.as_rgba_tuple();
            for (dx, dy) in (0..w * h).map(|at| (at % w, at / w)) {
                raster.over(x + dx as i32 - left as i32, y + dy as i32, [r, g, b], f32::from(alpha) / 255.0);
            }
        });
        Some(raster)
    }

    fn shape(&mut self, text: &str, Style { pixels, width, lines, centred, tabular }: Style) -> Buffer {
        let mut buffer = Buffer::new(&mut self.fonts, Metrics::new(pixels, (pixels * 1.3).ceil()));
        buffer.set_wrap(if lines == 1 { Wrap::None } else { Wrap::WordOrGlyph });
        if lines < usize::MAX {
            buffer.set_ellipsize(Ellipsize::End(EllipsizeHeightLimit::Lines(lines)));
        }
        buffer.set_size(Some(width), None);
        // Bold, because fonts of other scripts have this weight more often than a medium one.
        let mut attributes = Attrs::new().family(Family::Name(FAMILY)).weight(Weight::BOLD);
        if tabular {
            let mut features = FontFeatures::new();
            features.enable(FeatureTag::new(b"tnum"));
            attributes = attributes.font_features(features);
        }
        // The shipped font has some of the signs that are emoji with a variation selector (UTS #51).
        let emoji = attributes.clone().family(Family::Name(EMOJI_FAMILY));
        let spans = text.graphemes(true).map(|cluster| {
            (cluster, if cluster.contains(EMOJI_PRESENTATION) { emoji.clone() } else { attributes.clone() })
        });
        buffer.set_rich_text(
            spans,
            &attributes,
            Shaping::Advanced,
            Some(if centred { Align::Center } else { Align::Left }),
        );
        buffer.shape_until_scroll(&mut self.fonts, false);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latin_needs_no_system_fonts() {
        let mut lettering = Lettering::new();
        assert!(lettering.line("Zoë Πέτρος Ольга", 20.0, 500.0, [255; 3]).is_some());
        assert_eq!(lettering.machine, Machine::Unneeded);
        assert!(
            lettering.line("   ", 20.0, 500.0, [255; 3]).is_none_or(|raster| raster.pixels.iter().all(|p| p[3] == 0.0))
        );
    }

    /// Pixels that are neither grey nor transparent.
    fn coloured(raster: &Raster) -> usize {
        let spread = |p: &[f32; 4]| p[0].max(p[1]).max(p[2]) - p[0].min(p[1]).min(p[2]);
        raster.pixels.iter().filter(|pixel| spread(pixel) > 0.2).count()
    }

    /// With the fonts of the machine.
    fn with_machine_fonts() -> Lettering {
        let mut lettering = Lettering::new();
        lettering.machine = Machine::Awaited;
        while !lettering.learned() {
            thread::yield_now();
        }
        lettering
    }

    #[test]
    fn emoji_are_drawn_in_colour_without_system_fonts() {
        let mut lettering = Lettering::new();
        for text in ["🎈", "👩‍🚀", "🇫🇷", "👍🏽", "❤️", "Ann 🎈"] {
            let line = lettering.line(text, 20.0, 500.0, [255; 3]).expect(text);
            assert!(coloured(&line) > 40, "{text}: {}", coloured(&line));
            if text != "Ann 🎈" {
                assert!(line.width <= 32, "{text} is one sign, but {} wide", line.width);
            }
        }
        assert_eq!(lettering.machine, Machine::Unneeded);
    }

    #[test]
    fn lines_are_cut_with_an_ellipsis_between_clusters() {
        let mut lettering = with_machine_fonts();
        for name in ["Wilhelmina ", "👨‍👩‍👧‍👦", "محمد عبد الله ", "דוד בן־גוריון ", "山田太郎", "क्षत्रिय ", "김철수 "]
        {
            let text = name.repeat(12);
            let text = text.trim();
            let buffer = lettering.shape(text, Style::line(20.0, 150.0));
            let runs: Vec<_> = buffer.layout_runs().collect();
            assert_eq!(runs.len(), 1, "{name}");
            let glyphs = runs[0].glyphs;
            assert!(glyphs.iter().all(|glyph| glyph.glyph_id != 0), "{name} has missing glyphs");
            assert!(glyphs.len() > 1 && runs[0].line_w <= 150.0, "{name}: {} wide", runs[0].line_w);
            // The ellipsis stands for the rest of the text.
            let end = glyphs.iter().map(|glyph| glyph.end).filter(|end| *end < text.len()).max();
            let starts: Vec<usize> = text.grapheme_indices(true).map(|(at, _)| at).collect();
            assert!(end.is_some_and(|end| starts.contains(&end)), "{name} is cut at byte {end:?}, inside a cluster");
        }
    }

    #[test]
    fn initials_with_a_non_joiner_have_their_isolated_forms() {
        let mut lettering = with_machine_fonts();
        let mut glyphs = |text: &str| -> Vec<u16> {
            let buffer = lettering.shape(text, Style::line(20.0, 500.0));
            let visible = |glyph: &&cosmic_text::LayoutGlyph| glyph.w > 0.0;
            buffer.layout_runs().flat_map(|run| run.glyphs.iter().filter(visible).map(|g| g.glyph_id)).collect()
        };
        let (meem, ain) = (glyphs("م"), glyphs("ع"));
        let isolated = [meem, ain].concat();
        assert_eq!(glyphs("م\u{200c}ع"), isolated);
        assert_ne!(glyphs("مع"), isolated, "connected without it");
    }

    #[test]
    fn other_scripts_are_drawn_once_system_fonts_are_loaded() {
        let mut lettering = Lettering::new();
        let early = lettering.line("山田 太郎", 20.0, 500.0, [255; 3]);
        while lettering.machine == Machine::Awaited {
            assert!(early.is_none(), "nothing but empty boxes");
            lettering.learned();
            thread::yield_now();
        }
        let late = lettering.line("山田 太郎", 20.0, 500.0, [255; 3]).expect("visible");
        assert!((70..=130).contains(&late.width), "four letters as wide as high: {}", late.width);
        assert!(!lettering.learned(), "reported once");
    }

    #[test]
    fn long_names_are_truncated() {
        let mut lettering = Lettering::new();
        let short = lettering.line("Wilhelmina", 20.0, 1000.0, [255; 3]).expect("visible");
        let cut = lettering.line("Wilhelmina Featherstonehaugh-Cholmondeley", 20.0, 120.0, [255; 3]).expect("visible");
        assert!(short.width > 80, "{}", short.width);
        assert!((80..=122).contains(&cut.width), "{}", cut.width);
    }
}
