//! The instruments of General MIDI, and the keys that they can play.

/// An instrument of General MIDI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Number in program changes, from 0.
    pub number: u8,
    /// Name in the General MIDI standard.
    pub name: &'static str,
    /// Lowest key of the natural range. That of an effect is a range in which it is played.
    pub lowest_key: u8,
    /// Highest key of the natural range.
    pub highest_key: u8,
}

/// All instruments, by number.
pub const PROGRAMS: [Program; 128] = [
    program(0, "Acoustic Grand Piano", 21, 108),
    program(1, "Bright Acoustic Piano", 21, 108),
    program(2, "Electric Grand Piano", 21, 108),
    program(3, "Honky-tonk Piano", 21, 108),
    program(4, "Electric Piano 1", 28, 103),
    program(5, "Electric Piano 2", 28, 103),
    program(6, "Harpsichord", 41, 89),
    program(7, "Clavinet", 36, 96),
    program(8, "Celesta", 60, 108),
    program(9, "Glockenspiel", 72, 108),
    program(10, "Music Box", 60, 84),
    program(11, "Vibraphone", 53, 89),
    program(12, "Marimba", 48, 84),
    program(13, "Xylophone", 65, 96),
    program(14, "Tubular Bells", 60, 77),
    program(15, "Dulcimer", 60, 84),
    program(16, "Drawbar Organ", 36, 96),
    program(17, "Percussive Organ", 36, 96),
    program(18, "Rock Organ", 36, 96),
    program(19, "Church Organ", 21, 108),
    program(20, "Reed Organ", 36, 96),
    program(21, "Accordion", 53, 89),
    program(22, "Harmonica", 60, 84),
    program(23, "Tango Accordion", 53, 89),
    program(24, "Acoustic Guitar (nylon)", 40, 84),
    program(25, "Acoustic Guitar (steel)", 40, 84),
    program(26, "Electric Guitar (jazz)", 40, 86),
    program(27, "Electric Guitar (clean)", 40, 86),
    program(28, "Electric Guitar (muted)", 40, 86),
    program(29, "Overdriven Guitar", 40, 86),
    program(30, "Distortion Guitar", 40, 86),
    program(31, "Guitar Harmonics", 40, 86),
    program(32, "Acoustic Bass", 28, 55),
    program(33, "Electric Bass (finger)", 28, 55),
    program(34, "Electric Bass (pick)", 28, 55),
    program(35, "Fretless Bass", 28, 55),
    program(36, "Slap Bass 1", 28, 55),
    program(37, "Slap Bass 2", 28, 55),
    program(38, "Synth Bass 1", 28, 55),
    program(39, "Synth Bass 2", 28, 55),
    program(40, "Violin", 55, 96),
    program(41, "Viola", 48, 84),
    program(42, "Cello", 36, 72),
    program(43, "Contrabass", 28, 55),
    program(44, "Tremolo Strings", 28, 96),
    program(45, "Pizzicato Strings", 28, 96),
    program(46, "Orchestral Harp", 23, 103),
    program(47, "Timpani", 36, 57),
    program(48, "String Ensemble 1", 28, 96),
    program(49, "String Ensemble 2", 28, 96),
    program(50, "Synth Strings 1", 36, 96),
    program(51, "Synth Strings 2", 36, 96),
    program(52, "Choir Aahs", 48, 79),
    program(53, "Voice Oohs", 48, 79),
    program(54, "Synth Voice", 48, 84),
    program(55, "Orchestra Hit", 48, 72),
    program(56, "Trumpet", 58, 94),
    program(57, "Trombone", 34, 75),
    program(58, "Tuba", 29, 55),
    program(59, "Muted Trumpet", 58, 82),
    program(60, "French Horn", 41, 77),
    program(61, "Brass Section", 36, 96),
    program(62, "Synth Brass 1", 36, 96),
    program(63, "Synth Brass 2", 36, 96),
    program(64, "Soprano Sax", 54, 87),
    program(65, "Alto Sax", 49, 80),
    program(66, "Tenor Sax", 42, 75),
    program(67, "Baritone Sax", 37, 68),
    program(68, "Oboe", 58, 91),
    program(69, "English Horn", 52, 81),
    program(70, "Bassoon", 34, 72),
    program(71, "Clarinet", 50, 91),
    program(72, "Piccolo", 74, 108),
    program(73, "Flute", 60, 96),
    program(74, "Recorder", 60, 96),
    program(75, "Pan Flute", 60, 96),
    program(76, "Blown Bottle", 60, 96),
    program(77, "Shakuhachi", 55, 84),
    program(78, "Whistle", 60, 96),
    program(79, "Ocarina", 60, 84),
    program(80, "Lead 1 (square)", 36, 96),
    program(81, "Lead 2 (sawtooth)", 36, 96),
    program(82, "Lead 3 (calliope)", 36, 96),
    program(83, "Lead 4 (chiff)", 36, 96),
    program(84, "Lead 5 (charang)", 36, 96),
    program(85, "Lead 6 (voice)", 36, 96),
    program(86, "Lead 7 (fifths)", 36, 96),
    program(87, "Lead 8 (bass and lead)", 36, 96),
    program(88, "Pad 1 (new age)", 36, 96),
    program(89, "Pad 2 (warm)", 36, 96),
    program(90, "Pad 3 (polysynth)", 36, 96),
    program(91, "Pad 4 (choir)", 36, 96),
    program(92, "Pad 5 (bowed)", 36, 96),
    program(93, "Pad 6 (metallic)", 36, 96),
    program(94, "Pad 7 (halo)", 36, 96),
    program(95, "Pad 8 (sweep)", 36, 96),
    program(96, "FX 1 (rain)", 36, 96),
    program(97, "FX 2 (soundtrack)", 36, 96),
    program(98, "FX 3 (crystal)", 36, 96),
    program(99, "FX 4 (atmosphere)", 36, 96),
    program(100, "FX 5 (brightness)", 36, 96),
    program(101, "FX 6 (goblins)", 36, 96),
    program(102, "FX 7 (echoes)", 36, 96),
    program(103, "FX 8 (sci-fi)", 36, 96),
    program(104, "Sitar", 48, 77),
    program(105, "Banjo", 48, 84),
    program(106, "Shamisen", 50, 79),
    program(107, "Koto", 55, 84),
    program(108, "Kalimba", 48, 79),
    program(109, "Bagpipe", 36, 77),
    program(110, "Fiddle", 55, 96),
    program(111, "Shanai", 48, 72),
    program(112, "Tinkle Bell", 72, 84),
    program(113, "Agogo", 60, 72),
    program(114, "Steel Drums", 52, 76),
    program(115, "Woodblock", 60, 72),
    program(116, "Taiko Drum", 36, 57),
    program(117, "Melodic Tom", 36, 60),
    program(118, "Synth Drum", 36, 60),
    program(119, "Reverse Cymbal", 60, 72),
    program(120, "Guitar Fret Noise", 36, 72),
    program(121, "Breath Noise", 48, 72),
    program(122, "Seashore", 48, 72),
    program(123, "Bird Tweet", 48, 72),
    program(124, "Telephone Ring", 48, 72),
    program(125, "Helicopter", 48, 72),
    program(126, "Applause", 48, 72),
    program(127, "Gunshot", 48, 72),
];

const fn program(number: u8, name: &'static str, lowest_key: u8, highest_key: u8) -> Program {
    Program {
        number,
        name,
        lowest_key,
        highest_key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn programs_lie_at_their_numbers_with_names_of_their_own_and_ranges_of_at_least_an_octave() {
        for (index, program) in PROGRAMS.iter().enumerate() {
            assert_eq!(usize::from(program.number), index);
            let keys = program.lowest_key..=program.highest_key;
            assert!(keys.len() > 12 && *keys.end() < 128, "{program:?}");
        }
        let names: BTreeSet<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        assert_eq!(names.len(), PROGRAMS.len());
        let name = |number: usize| PROGRAMS[number].name;
        assert_eq!(
            [name(0), name(40), name(73), name(127)],
            ["Acoustic Grand Piano", "Violin", "Flute", "Gunshot"]
        );
    }
}
