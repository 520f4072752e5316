//! Recognises HE-AAC by its packets. Its upper octave is in a part (spectral band replication) that a decoder of plain
//! AAC skips; a file need not announce it.

/// Whether the last elements of an AAC packet (ISO/IEC 14496-3, `raw_data_block`) are a fill element with spectral band
/// replication, perhaps another fill element, and the end mark.
///
/// The packet is read from its end, because the elements before are entropy-coded. Of random packets, about one in a
/// hundred looks like this by chance.
pub(super) fn seems_replicated(packet: &[u8]) -> bool {
    let bits = Bits(packet);
    let end = 8 * packet.len();
    (0..8).any(|padding| {
        let Some(mark) = end.checked_sub(padding + 3) else {
            return false;
        };
        bits.read(mark, 3) == Some(7)
            && bits.read(mark + 3, padding) == Some(0)
            && bits.ends_with_replication(mark, 2)
    })
}

/// Bits of a packet, most significant first.
struct Bits<'a>(&'a [u8]);

impl Bits<'_> {
    /// The number in up to 32 bits from `position` on.
    fn read(&self, position: usize, bits: usize) -> Option<u32> {
        (position..position + bits).try_fold(0, |number, position| {
            let byte = self.0.get(position / 8)?;
            Some(number << 1 | u32::from(byte >> (7 - position % 8) & 1))
        })
    }

    /// Whether the bits before `end` are up to `most` fill elements, one of them with replication data.
    fn ends_with_replication(&self, end: usize, most: usize) -> bool {
        const FILL: u32 = 6;
        most > 0
            && (1..=269).any(|count: usize| {
                // Lengths from 15 on take another 8 bits.
                let (short, long) = match count {
                    ..15 => (count, None),
                    _ => (15, Some(count - 14)),
                };
                let header = 7 + if long.is_some() { 8 } else { 0 };
                let Some(start) = end.checked_sub(header + 8 * count) else {
                    return false;
                };
                let is_fill = self.read(start, 3) == Some(FILL)
                    && self.read(start + 3, 4) == Some(short as u32)
                    && long.is_none_or(|long| self.read(start + 7, 8) == Some(long as u32));
                is_fill
                    && match self.read(start + header, 4) {
                        Some(0xd | 0xe) => true,
                        // Bits without meaning, to keep a bit rate.
                        Some(0 | 1) => self.ends_with_replication(start, most - 1),
                        _ => false,
                    }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits of text, filled up with zeros to whole bytes.
    fn packet(bits: &str) -> Vec<u8> {
        let bits: Vec<u8> = bits
            .bytes()
            .filter_map(|bit| (bit != b' ').then_some(bit - b'0'))
            .collect();
        bits.chunks(8)
            .map(|byte| (0..8).fold(0, |sum, bit| sum << 1 | byte.get(bit).copied().unwrap_or(0)))
            .collect()
    }

    #[test]
    fn replication_before_the_end_mark_is_seen() {
        let music = "001 0000 1010 1110 0101 1";
        let replication = format!("110 0011 1101 {}", "1011 0".repeat(4));
        let filling = format!("110 0010 0000 {}", "0101".repeat(3));
        for (tail, expected) in [
            (format!("{replication} 111"), true),
            (format!("{replication} {filling} 111"), true),
            (format!("{filling} 111"), false),
            ("111".into(), false),
        ] {
            assert_eq!(
                seems_replicated(&packet(&format!("{music} {tail}"))),
                expected,
                "{tail}"
            );
        }
        let long = format!("110 1111 00000110 1110 {} 111", "0110".repeat(39));
        assert!(seems_replicated(&packet(&format!("{music} {long}"))));
        assert!(!seems_replicated(&[]));
    }

    #[test]
    fn random_packets_rarely_look_like_it() {
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let found = (0..2000)
            .filter(|_| seems_replicated(&(0..200).map(|_| random()).collect::<Vec<_>>()))
            .count();
        assert!(found < 60, "{found} of 2000");
    }
}
