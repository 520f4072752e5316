//! PNG files of 8-bit RGB. Their rows are compressed unfiltered, which suits plots and windows.

use miniz_oxide::deflate::compress_to_vec_zlib;

/// Of miniz_oxide, from 0 to 10.
const COMPRESSION_LEVEL: u8 = 9;

/// The file of an image of `width` times `height` pixels, `rgb` row after row.
///
/// # Panics
///
/// When `rgb` does not have three bytes for each pixel.
pub fn encode(width: u32, height: u32, rgb: &[u8]) -> Vec<u8> {
    assert_eq!(rgb.len(), 3 * width as usize * height as usize);
    // 8 bits, RGB, and the only methods of compression, filtering and order.
    let header = [
        &width.to_be_bytes()[..],
        &height.to_be_bytes(),
        &[8, 2, 0, 0, 0],
    ]
    .concat();
    let mut rows = Vec::with_capacity(rgb.len() + height as usize);
    for row in rgb.chunks_exact(3 * width as usize) {
        // Filter: none.
        rows.push(0);
        rows.extend(row);
    }
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    push_chunk(&mut file, b"IHDR", &header);
    push_chunk(
        &mut file,
        b"IDAT",
        &compress_to_vec_zlib(&rows, COMPRESSION_LEVEL),
    );
    push_chunk(&mut file, b"IEND", &[]);
    file
}

fn push_chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).expect("pictures are smaller than 4 GB");
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(kind);
    checksum.update(data);
    file.extend(length.to_be_bytes());
    file.extend(kind);
    file.extend(data);
    file.extend(checksum.finalize().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniz_oxide::inflate::decompress_to_vec_zlib;

    #[test]
    fn a_picture_is_in_its_file() {
        let rgb: Vec<u8> = (0..2 * 3 * 3).collect();
        let file = encode(2, 3, &rgb);
        // zlib.crc32(b"IHDR" + struct.pack(">IIBBBBB", 2, 3, 8, 2, 0, 0, 0))
        assert_eq!(
            file[..33],
            *b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x02\0\0\0\x03\x08\x02\0\0\0\x36\x88\x49\xd6"
        );
        assert!(file.ends_with(b"\0\0\0\0IEND\xaeB`\x82"));
        let data = &file[41..file.len() - 16];
        assert_eq!(file[37..41], *b"IDAT");
        let rows = decompress_to_vec_zlib(data).unwrap();
        let (filters, pixels): (Vec<_>, Vec<_>) =
            rows.chunks(7).map(|row| (row[0], &row[1..])).unzip();
        assert_eq!(filters, [0; 3]);
        assert_eq!(pixels.concat(), rgb);
    }
}
