//! Pieces of frames, honest and hostile: what is put together is what was cut, and no more is held than may be.

use std::time::Duration;

use vpn::session::{HELD_MAX, PARTIALS_MAX, PIECE_OVERHEAD, Piece, Reassembler, Splitter, WAITS_AT_MOST};

use super::input::Input;
use super::start;

/// Every byte of every frame says where it belongs, so a frame that comes out shows whether it was put together rightly.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mut reassembler, mut splitter, mut now) = (Reassembler::default(), Splitter::new(true), start());
    while let Some(operation) = input.operation() {
        match operation % 4 {
            0 => {
                let piece = (u32::from(input.u8() % 4), u32::from(input.u16()) * u32::from(input.u8() % 3));
                let content = content(piece.0, piece.1, usize::from(input.u16() % 1500));
                let piece = Piece { id: piece.0, offset: piece.1, more: input.bool(), bytes: &content };
                let mut body = Vec::new();
                piece.encode(&mut body);
                if let Some(decoded) = Piece::decode(&body) {
                    assert_eq!(decoded, piece);
                    check(piece.id, reassembler.handle_piece(piece, now));
                }
            }
            1 => {
                if let Some(piece) = Piece::decode(input.bytes()) {
                    let mut body = Vec::new();
                    piece.encode(&mut body);
                    assert_eq!(Piece::decode(&body), Some(piece));
                }
            }
            2 => split(&mut splitter, &mut reassembler, &mut input, now),
            _ => {
                now += Duration::from_millis(100 * u64::from(input.u8() % 64));
                reassembler.expire(now);
            }
        }
        let stats = reassembler.stats();
        assert!(stats.held <= HELD_MAX && reassembler.waiting() <= PARTIALS_MAX, "{stats:?}");
        assert!(stats.held >= reassembler.waiting() * PIECE_OVERHEAD, "{stats:?}");
    }
    reassembler.expire(now + WAITS_AT_MOST);
    assert_eq!((reassembler.stats().held, reassembler.waiting()), (0, 0));
}

/// An honest frame whose pieces arrive, all of them or all but one: whatever else waits, it comes out, or does not.
fn split(
    splitter: &mut Splitter,
    reassembler: &mut Reassembler,
    input: &mut Input<'_>,
    now: std::time::Instant,
) {
    let (length, room) = (usize::from(input.u16()).max(1), 1000 + usize::from(input.u8()));
    let lost = usize::from(input.u8());
    splitter.start(vec![0; length]);
    let (mut number, mut came) = (0, false);
    while let Some(piece) = splitter.next_piece(room) {
        if number != lost {
            // Far from the ids of the hostile.
            let id = piece.id | 0x8000_0000;
            let content = content(id, piece.offset, piece.bytes.len());
            let whole = reassembler.handle_piece(Piece { id, bytes: &content, ..piece }, now);
            came |= whole.as_ref().is_some_and(|whole| whole.len() == length);
            check(id, whole);
        }
        number += 1;
    }
    assert!(splitter.is_idle());
    assert_eq!(came, lost >= number, "{length} bytes in {number} pieces, {lost} lost");
}

fn check(id: u32, whole: Option<Vec<u8>>) {
    if let Some(whole) = whole {
        assert!(whole == content(id, 0, whole.len()), "a frame of {} bytes is wrong", whole.len());
    }
}

fn content(id: u32, offset: u32, length: usize) -> Vec<u8> {
    let end = offset + u32::try_from(length).expect("short");
    (offset..end).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24 ^ id).to_le_bytes()[0]).collect()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 1, 0, 0, 1, 100, 0, 1, 0, 1, 100, 0, 1, 100, 0, 0],
        vec![0, 1, 0, 0, 1, 100, 0, 1, 0, 1, 50, 0, 1, 100, 0, 0, 3, 60],
        vec![2, 0x88, 0x13, 10, 255, 2, 0xff, 0xff, 0, 3, 2, 1, 0, 0, 0],
        vec![1, 11, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 7, 7, 0, 2, 0, 0, 2, 220, 5, 1],
    ]
}
