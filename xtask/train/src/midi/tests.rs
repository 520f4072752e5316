//! Tests with a small song, made here, and a tiny sound font.

use std::collections::BTreeSet;
use std::fs;

use graft_material::loudness::{TARGET_RMS_DBFS, gated_rms};
use graft_material::testing::TestFolder;
use midly::num::{u4, u7, u15, u24, u28};
use midly::{Format, Header, MetaMessage, MidiMessage, Smf, Timing, TrackEvent, TrackEventKind};

use super::arrange::Message;
use super::*;

const RATE_HZ: u32 = 22_050;
const TICKS_PER_BEAT: u32 = 96;
const NOTE_ON: u8 = 0x90;
const NOTE_OFF: u8 = 0x80;

const SHAPE: ClipShape = ClipShape {
    seconds: 2.0,
    transpositions: 3,
    max_shift_semitones: 6,
};

fn settings() -> MidiSettings {
    MidiSettings {
        clips: 4,
        seconds: SHAPE.seconds,
        transpositions: SHAPE.transpositions,
        max_shift_semitones: SHAPE.max_shift_semitones,
        swaps: false,
        seed: 5,
    }
}

/// Events of a track at ticks, in any order.
#[derive(Default)]
struct TestTrack(Vec<(u32, TrackEventKind<'static>)>);

impl TestTrack {
    fn meta(mut self, tick: u32, message: MetaMessage<'static>) -> Self {
        self.0.push((tick, TrackEventKind::Meta(message)));
        self
    }

    fn tempo(self, tick: u32, microseconds: u32) -> Self {
        self.meta(tick, MetaMessage::Tempo(u24::new(microseconds)))
    }

    fn message(mut self, tick: u32, channel: u8, message: MidiMessage) -> Self {
        let channel = u4::new(channel);
        self.0
            .push((tick, TrackEventKind::Midi { channel, message }));
        self
    }

    fn program(self, tick: u32, channel: u8, program: u8) -> Self {
        let program = u7::new(program);
        self.message(tick, channel, MidiMessage::ProgramChange { program })
    }

    fn controller(self, tick: u32, channel: u8, controller: u8, value: u8) -> Self {
        let (controller, value) = (u7::new(controller), u7::new(value));
        self.message(tick, channel, MidiMessage::Controller { controller, value })
    }

    /// Let go by a note on without velocity, as many files do.
    fn note(self, tick: u32, length: u32, channel: u8, key: u8) -> Self {
        let (key, vel) = (u7::new(key), u7::new(80));
        self.message(tick, channel, MidiMessage::NoteOn { key, vel })
            .message(
                tick + length,
                channel,
                MidiMessage::NoteOn {
                    key,
                    vel: u7::new(0),
                },
            )
    }
}

fn file(format: Format, tracks: impl IntoIterator<Item = TestTrack>) -> Vec<u8> {
    let timing = Timing::Metrical(u15::new(TICKS_PER_BEAT as u16));
    let mut smf = Smf::new(Header::new(format, timing));
    for TestTrack(mut events) in tracks {
        events.sort_by_key(|(tick, _)| *tick);
        let mut last = 0;
        let mut track: Vec<TrackEvent> = Vec::new();
        for (tick, kind) in events {
            let delta = u28::new(tick - last);
            last = tick;
            track.push(TrackEvent { delta, kind });
        }
        track.push(TrackEvent {
            delta: u28::new(0),
            kind: TrackEventKind::Meta(MetaMessage::EndOfTrack),
        });
        smf.tracks.push(track);
    }
    let mut bytes = Vec::new();
    smf.write_std(&mut bytes).unwrap();
    bytes
}

/// Sixteen bars at 120 beats a minute from `first_tick` on: a melody, long bass notes on each bar's first beat.
fn melody(first_tick: u32) -> TestTrack {
    (0..64).fold(TestTrack::default(), |track, beat| {
        let tick = first_tick + beat * TICKS_PER_BEAT;
        let track = track.note(tick, TICKS_PER_BEAT / 2, 0, 60 + (beat * 5 % 12) as u8);
        if beat % 4 == 0 {
            track.note(tick, 3 * TICKS_PER_BEAT, 1, 36)
        } else {
            track
        }
    })
}

fn drums() -> TestTrack {
    (0..128).fold(TestTrack::default(), |track, half_beat| {
        let tick = half_beat * TICKS_PER_BEAT / 2;
        track.note(tick, 10, song::DRUM_CHANNEL, 36 + (half_beat % 2) as u8 * 2)
    })
}

fn song(tracks: impl IntoIterator<Item = TestTrack>) -> Song {
    Song::parse(&file(Format::Parallel, tracks)).unwrap()
}

fn arrangements(song: &Song, count: usize) -> Vec<Arrangement> {
    (0..count)
        .map(|index| arrange(song, SHAPE, &mut random(1, index)).unwrap())
        .collect()
}

#[test]
fn notes_have_the_times_of_the_tempo_map() {
    // 120 beats a minute by default, 60 from the second beat on, 240 from the third.
    let tempo = TestTrack::default()
        .tempo(TICKS_PER_BEAT, 1_000_000)
        .tempo(2 * TICKS_PER_BEAT, 250_000);
    let notes = TestTrack::default()
        .note(0, TICKS_PER_BEAT, 3, 60)
        .note(TICKS_PER_BEAT / 2, 2 * TICKS_PER_BEAT, 3, 64)
        .note(3 * TICKS_PER_BEAT, TICKS_PER_BEAT, 3, 67);
    let song = song([tempo, notes]);
    let found: Vec<(u8, f64, f64)> = song
        .notes
        .iter()
        .map(|note| (note.key, note.start_s, note.end_s))
        .collect();
    assert_eq!(found, [(60, 0.0, 0.5), (64, 0.25, 1.625), (67, 1.75, 2.0)]);
    assert!(song.notes.iter().all(|note| note.channel == 3));
    assert_eq!(song.end_s(), 2.0);
}

#[test]
fn notes_without_an_end_last_and_effects_are_left_out() {
    let (key, vel) = (u7::new(60), u7::new(90));
    let track = TestTrack::default()
        .message(0, 0, MidiMessage::NoteOn { key, vel })
        // Struck again before it is let go: the first one ends.
        .message(96, 0, MidiMessage::NoteOn { key, vel })
        .program(0, 2, 126)
        .note(0, 96, 2, 60)
        .note(0, 192, song::DRUM_CHANNEL, 36);
    let song = song([track]);
    let found: Vec<(u8, f64, f64)> = song
        .notes
        .iter()
        .map(|note| (note.channel, note.start_s, note.end_s))
        .collect();
    assert_eq!(
        found,
        [(0, 0.0, 0.5), (song::DRUM_CHANNEL, 0.0, 1.0), (0, 0.5, 1.0)]
    );
}

#[test]
fn files_without_use_are_refused() {
    let reason = |bytes: &[u8]| format!("{:#}", Song::parse(bytes).unwrap_err());
    reason(b"no MIDI");
    assert!(reason(&file(Format::Parallel, [drums()])).contains("pitch"));
    assert!(reason(&file(Format::Sequential, [melody(0)])).contains("sequence"));
    let mut film = file(Format::Parallel, [melody(0)]);
    film[12] = 0xE7;
    assert!(reason(&film).contains("film"));

    let short = song([melody(0)]);
    short.ensure_long_enough(20.0).unwrap();
    let reason = short.ensure_long_enough(40.0).unwrap_err();
    assert!(format!("{reason:#}").contains("50.0 s"), "{reason:#}");
}

#[test]
fn messages_are_in_order_and_notes_begin_in_the_clip() {
    let song = song([melody(0), drums()]);
    for arrangement in arrangements(&song, 20) {
        for messages in [&arrangement.pitched, &arrangement.drums] {
            assert!(messages.is_sorted_by(|a, b| a.time_s <= b.time_s));
            let mut sounding = BTreeSet::new();
            for message in messages {
                let key = (message.channel, message.data1);
                match message.command {
                    NOTE_ON => {
                        assert!((0.0..SHAPE.seconds).contains(&message.time_s));
                        assert!((1..=127).contains(&message.data2));
                        assert!(sounding.insert(key), "struck twice: {message:?}");
                    }
                    NOTE_OFF => assert!(sounding.remove(&key), "not struck: {message:?}"),
                    _ => assert_eq!(message.time_s, 0.0),
                }
            }
            assert!(sounding.is_empty(), "never let go: {sounding:?}");
        }
        let channels: BTreeSet<u8> = arrangement.drums.iter().map(|drum| drum.channel).collect();
        assert!(channels.is_subset(&BTreeSet::from([song::DRUM_CHANNEL])));
        assert_eq!(arrangement.semitones.len(), 3);
        assert!(arrangement.semitones.is_sorted_by(|a, b| a < b));
        assert!(arrangement.semitones.iter().all(|n| n.abs() <= 6));
    }
}

#[test]
fn programs_tempo_and_drums_vary_but_basses_stay_basses() {
    let song = song([melody(0), drums()]);
    let arrangements = arrangements(&song, 40);
    let programs = |channel: u8| -> BTreeSet<u8> {
        arrangements
            .iter()
            .flat_map(|arrangement| &arrangement.pitched)
            .filter(|message| message.command == 0xC0 && message.channel == channel)
            .map(|message| message.data1)
            .collect()
    };
    assert!(programs(0).len() > 20, "{:?}", programs(0));
    assert!(programs(1).iter().all(|program| (32..40).contains(program)));
    let without = arrangements.iter().filter(|a| a.drums.is_empty()).count();
    assert!((1..20).contains(&without), "{without}");

    // The melody has a note each half second.
    let steps: Vec<f64> = arrangements
        .iter()
        .map(|arrangement| {
            let mut onsets = arrangement
                .pitched
                .iter()
                .filter(|message| (message.command, message.channel) == (NOTE_ON, 0));
            let first = onsets.next().unwrap().time_s;
            onsets.next().unwrap().time_s - first
        })
        .collect();
    let (shortest, longest) = steps
        .iter()
        .fold((1.0f64, 0.0f64), |(a, b), &step| (a.min(step), b.max(step)));
    assert!((0.4..0.42).contains(&shortest), "{shortest}");
    assert!((0.58..=0.625).contains(&longest), "{longest}");
}

#[test]
fn what_sounds_at_the_begin_is_struck_again_and_controls_are_kept() {
    // One long note under many short ones, that nothing but its first message tells of.
    let track = melody(0)
        .note(0, 60 * TICKS_PER_BEAT, 5, 70)
        .controller(0, 5, 7, 33)
        .controller(0, 5, 10, 0)
        .controller(63 * TICKS_PER_BEAT, 5, 7, 99);
    let song = song([track]);
    for arrangement in arrangements(&song, 10) {
        let messages: Vec<&Message> = arrangement
            .pitched
            .iter()
            .filter(|message| message.channel == 5)
            .collect();
        let commands: Vec<(u8, u8)> = messages
            .iter()
            .map(|message| (message.command, message.data1))
            .collect();
        let program = commands[0].1;
        assert_eq!(
            commands,
            [(0xC0, program), (0xB0, 7), (NOTE_ON, 70), (NOTE_OFF, 70)]
        );
        assert_eq!(messages[1].data2, 33);
        assert_eq!(messages[2].time_s, 0.0);
    }
}

#[test]
fn a_transposition_moves_keys_and_nothing_else() {
    let song = song([melody(0)]);
    let arrangement = &arrangements(&song, 1)[0];
    for message in &arrangement.pitched {
        let moved = message.transposed(-5);
        let key_moves = matches!(message.command, NOTE_ON | NOTE_OFF);
        let data1 = if key_moves {
            message.data1 - 5
        } else {
            message.data1
        };
        assert_eq!(
            moved,
            Message {
                data1,
                ..message.clone()
            }
        );
    }
    let with_key = |data1| Message {
        data1,
        ..arrangement.pitched.last().unwrap().clone()
    };
    assert_eq!(with_key(3).transposed(-4).data1, 11);
    assert_eq!(with_key(125).transposed(7).data1, 120);
    assert_eq!(with_key(0).transposed(-24).data1, 0);
}

#[test]
fn patterns_follow_the_beat_of_the_notes() {
    // 29 ticks are more than a sixteenth: the file's own beats are of no use.
    for (first_tick, origin) in [(0, 0.0), (29, 29.0), (29 + 3 * 96, 29.0 + 3.0 * 96.0)] {
        let song = song([melody(first_tick)]);
        let notes: Vec<_> = song.notes.iter().collect();
        let grid = groove::Grid::find(&song, &notes);
        let bar = f64::from(4 * TICKS_PER_BEAT);
        for seed in 0..20 {
            let strokes: Vec<_> = groove::strokes(grid, 500.0, &mut random(seed, 0))
                .take_while(|stroke| stroke.tick < 3000.0)
                .collect();
            assert!(strokes.is_sorted_by(|a, b| a.tick <= b.tick));
            assert!(strokes.iter().all(|stroke| stroke.tick >= 500.0));
            let sixteenths = strokes.iter().map(|stroke| (stroke.tick - origin) / 24.0);
            assert!(
                sixteenths
                    .clone()
                    .all(|sixteenth| (sixteenth - sixteenth.round()).abs() < 1e-6)
            );
            // All patterns repeat after a bar, but for the crash.
            let of_bar = |index: i32| -> Vec<(i32, u8)> {
                let begin = origin + bar * f64::from(index) - 1.0;
                strokes
                    .iter()
                    .filter(|stroke| stroke.key != 49)
                    .filter(|stroke| (begin..begin + bar).contains(&stroke.tick))
                    .map(|stroke| ((stroke.tick - begin).round() as i32, stroke.key))
                    .collect()
            };
            assert_eq!(of_bar(3), of_bar(4));
            let crashes = strokes.iter().filter(|stroke| stroke.key == 49);
            for crash in crashes {
                let bars = (crash.tick - origin) / bar;
                assert!((bars - bars.round()).abs() < 1e-6, "{bars}");
            }
        }
    }
}

#[test]
fn bars_in_threes_are_kept() {
    let signature = MetaMessage::TimeSignature(3, 2, 24, 8);
    let song = song([melody(0).meta(0, signature)]);
    let notes: Vec<_> = song.notes.iter().collect();
    let grid = groove::Grid::find(&song, &notes);
    let bar = f64::from(3 * TICKS_PER_BEAT);
    let kicks: Vec<f64> = groove::strokes(grid, 0.0, &mut random(1, 0))
        .filter(|stroke| stroke.velocity == 112)
        .take(40)
        .map(|stroke| stroke.tick)
        .collect();
    let first_bar: Vec<f64> = kicks.iter().copied().filter(|&tick| tick < bar).collect();
    assert!(!first_bar.is_empty());
    for tick in first_bar {
        assert!(kicks.contains(&(tick + bar)), "{kicks:?}");
    }
}

fn renderer(folder: &TestFolder) -> Renderer {
    let path = folder.path().join("tiny.sf2");
    fs::write(&path, tiny_sound_font::bytes()).unwrap();
    Renderer::new(&path, SHAPE.seconds, RATE_HZ).unwrap()
}

/// One note, and a drum in the middle.
fn one_note(semitones: Vec<i32>) -> Arrangement {
    let message = |time_s, channel, command, data1| Message {
        time_s,
        channel,
        command,
        data1,
        data2: 100,
    };
    Arrangement {
        pitched: vec![message(0.0, 0, NOTE_ON, 69), message(1.5, 0, NOTE_OFF, 69)],
        drums: vec![message(1.0, song::DRUM_CHANNEL, NOTE_ON, 36)],
        drum_level_db: -6.0,
        semitones,
        clock: arrange::Clock {
            start_s: 0.0,
            tempo_factor: 1.0,
        },
    }
}

/// Frequency by the number of rising zero crossings, between two times.
fn frequency_hz(samples: &[f32], from_s: f64, to_s: f64) -> f64 {
    let index = |time_s: f64| (time_s * f64::from(RATE_HZ)) as usize;
    let stretch = &samples[index(from_s)..index(to_s)];
    let crossings: Vec<usize> = (1..stretch.len())
        .filter(|&n| stretch[n - 1] < 0.0 && stretch[n] >= 0.0)
        .collect();
    let periods = crossings.len() - 1;
    periods as f64 * f64::from(RATE_HZ) / (crossings[periods] - crossings[0]) as f64
}

#[test]
fn stems_are_in_tune_add_up_and_are_as_loud_as_other_tracks() {
    let folder = TestFolder::new("midi_render");
    let clip = renderer(&folder).clip(&one_note(vec![-5, 0, 7])).unwrap();
    let drums = clip.drums.as_ref().unwrap().floats();
    assert_eq!(drums.len(), 2 * RATE_HZ as usize);
    for (semitones, pcm) in &clip.pitched {
        let stem = pcm.floats();
        assert_eq!(stem.len(), drums.len());
        let expected_hz = tiny_sound_font::SINE_HZ * (f64::from(*semitones) / 12.0).exp2();
        let found_hz = frequency_hz(&stem, 0.1, 1.4);
        assert!(
            (found_hz / expected_hz - 1.0).abs() < 1e-3,
            "{found_hz} instead of {expected_hz}"
        );
        let mix: Vec<f32> = stem.iter().zip(&drums).map(|(a, b)| a + b).collect();
        let level_db = 20.0 * gated_rms(&mix, RATE_HZ).unwrap().log10();
        assert!((level_db - TARGET_RMS_DBFS).abs() < 0.1, "{level_db}");
    }
    let ratio = gated_rms(&drums, RATE_HZ).unwrap()
        / gated_rms(&clip.pitched[1].1.floats(), RATE_HZ).unwrap();
    assert!((20.0 * ratio.log10() + 6.0).abs() < 0.1, "{ratio}");
    let second = RATE_HZ as usize;
    let before = drums[..second - 100]
        .iter()
        .fold(0.0f32, |peak, x| peak.max(x.abs()));
    let after = drums[second..]
        .iter()
        .fold(0.0f32, |peak, x| peak.max(x.abs()));
    assert!(
        before < 1e-3 * after,
        "{before} before the stroke, {after} after it"
    );

    // Nothing of the one stem depends on the other.
    let alone = renderer(&folder).clip(&one_note(vec![7])).unwrap();
    assert!(alone.pitched[0].1.samples == clip.pitched[2].1.samples);
    assert!(alone.drums.unwrap().samples == clip.drums.unwrap().samples);
}

#[test]
fn an_arrangement_without_drums_has_no_stem_for_them() {
    let folder = TestFolder::new("midi_no_drums");
    let renderer = renderer(&folder);
    let mut arrangement = one_note(vec![0, 1]);
    arrangement.drums.clear();
    assert!(renderer.clip(&arrangement).unwrap().drums.is_none());
    arrangement.pitched.clear();
    assert!(renderer.clip(&arrangement).is_err(), "silence was taken");
}

/// Two sources with two songs each, of different lengths, and a file that is none.
fn sources() -> Vec<Vec<files::MidiFile>> {
    let file = |name: &str, first_tick| files::MidiFile {
        name: name.to_owned(),
        bytes: file(Format::Parallel, [melody(first_tick)]),
        chords: None,
    };
    let broken = files::MidiFile {
        name: "broken".to_owned(),
        bytes: Vec::new(),
        chords: None,
    };
    vec![
        vec![file("a1", 0), broken, file("a2", 10)],
        vec![file("b1", 20)],
    ]
}

#[test]
fn clips_are_drawn_evenly_and_by_seed() {
    let settings = MidiSettings {
        clips: 12,
        ..settings()
    };
    let plans = plan(sources(), &settings).unwrap();
    let of_song = |song: &str| {
        plans
            .iter()
            .filter(|plan| plan.name.starts_with(song))
            .count()
    };
    assert_eq!([of_song("a1"), of_song("a2"), of_song("b1")], [3, 3, 6]);

    let arrangements = |settings: &MidiSettings| -> Vec<Arrangement> {
        let plans = plan(sources(), settings).unwrap().into_iter();
        plans.map(|plan| plan.arrangement).collect()
    };
    let first = arrangements(&settings);
    let fewer = MidiSettings {
        clips: 5,
        ..settings
    };
    assert_eq!(arrangements(&fewer), first[..5]);
    assert_ne!(first[0], first[6], "the same song played alike");
    let other = MidiSettings { seed: 6, ..fewer };
    assert_ne!(arrangements(&other), first[..5]);
    assert!(plan(vec![sources().remove(0).split_off(3)], &other).is_err());
}

#[test]
fn a_second_run_takes_clips_from_the_cache() {
    let folder = TestFolder::new("midi_cache");
    let sound_font = folder.path().join("tiny.sf2");
    fs::write(&sound_font, tiny_sound_font::bytes()).unwrap();
    let cache = folder.path().join("cache");
    let run = |settings: &MidiSettings| {
        let workshop = Workshop {
            seconds: settings.seconds,
            sample_rate_hz: RATE_HZ,
            sound_font: &sound_font,
        };
        let plans = plan(sources(), settings).unwrap();
        let clips = workshop.clips(plans, &cache).unwrap().into_iter();
        clips.map(|(_, clip)| clip).collect::<Vec<_>>()
    };
    let cached = || -> Vec<PathBuf> {
        let entries = fs::read_dir(&cache).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let first = run(&settings());
    assert_eq!(first.len(), 4);
    assert_eq!(cached().len(), 4);
    assert!(run(&settings()) == first);

    // What the cache says is what counts, unless it is damaged.
    let before = fs::read(&cached()[0]).unwrap();
    let mut other = before.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&cached()[0], &other).unwrap();
    assert!(run(&settings()) != first);
    fs::write(&cached()[0], &before[..before.len() / 2]).unwrap();
    assert!(run(&settings()) == first);
    assert!(fs::read(&cached()[0]).unwrap() == before);

    // Another seed is other clips; the old ones stay.
    let other = MidiSettings {
        seed: 6,
        ..settings()
    };
    assert!(run(&other) != first);
    assert_eq!(cached().len(), 8);
}

#[test]
fn swaps_pair_each_clip_with_another_and_are_cached() {
    let folder = TestFolder::new("midi_swaps");
    let sound_font = folder.path().join("tiny.sf2");
    fs::write(&sound_font, tiny_sound_font::bytes()).unwrap();
    let cache = folder.path().join("cache");
    let run = |swaps| {
        let settings = MidiSettings {
            swaps,
            ..settings()
        };
        let workshop = Workshop {
            seconds: settings.seconds,
            sample_rate_hz: RATE_HZ,
            sound_font: &sound_font,
        };
        let plans = plan(sources(), &settings).unwrap();
        workshop.renderings(plans, &settings, &cache).unwrap()
    };
    let without = run(false);
    assert!(without.swaps.is_empty());
    let with = run(true);
    assert_eq!(with.clips, without.clips);
    assert_eq!(with.swaps.len(), 4);
    for (swap, clip) in with.swaps.iter().zip(&with.clips) {
        assert!(Arc::ptr_eq(&swap.harmony, clip));
        assert!(!Arc::ptr_eq(&swap.rhythm, clip));
        assert!(
            with.clips
                .iter()
                .any(|clip| Arc::ptr_eq(clip, &swap.rhythm))
        );
        let semitones = |rendering: &Rendering| -> Vec<i32> {
            let pitched = rendering.pitched.iter();
            pitched.map(|(semitones, _)| *semitones).collect()
        };
        assert_eq!(semitones(&swap.remix), semitones(&swap.harmony));
        assert_ne!(swap.remix.pitched, swap.harmony.pitched);
        assert_eq!(swap.remix.drums.is_some(), swap.rhythm.drums.is_some());
    }
    let cached = || fs::read_dir(&cache).unwrap().count();
    assert_eq!(cached(), 8);
    assert!(run(true) == with);
    assert_eq!(cached(), 8);
}

#[test]
fn folders_without_midi_need_no_sound_font() {
    let folder = TestFolder::new("midi_none");
    let folders = [folder.path().to_owned()];
    let cache = folder.path().join("cache");
    assert!(load(&folders, &settings(), &cache, RATE_HZ).unwrap() == Renderings::default());
    assert!(!cache.exists());
}

#[test]
fn settings_out_of_range_are_refused() {
    for wrong in [
        MidiSettings {
            seconds: 0.0,
            ..settings()
        },
        MidiSettings {
            seconds: f64::NAN,
            ..settings()
        },
        MidiSettings {
            transpositions: 0,
            ..settings()
        },
        MidiSettings {
            transpositions: 14,
            ..settings()
        },
        MidiSettings {
            max_shift_semitones: 25,
            ..settings()
        },
    ] {
        assert!(
            load(&[], &wrong, Path::new("cache"), RATE_HZ).is_err(),
            "{wrong:?}"
        );
    }
}
