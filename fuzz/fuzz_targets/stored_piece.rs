//! Stored pieces of a log, of all versions. They come from the daemon's own disk, but a damaged one must be
//! an error and not a panic, and everything read from one must be inside it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nervewire::cursor::CursorKey;
use nervewire::frame::merge::coalesce;
use nervewire::frame::{Frame, RoutingKey};
use nervewire::ids::{Sequence, TenantId};
use nervewire::store::{decode_piece, encode_pieces};
use nervewire::transport::WireFormat;

const KEY: CursorKey = CursorKey { store_id: *b"fuzz", key: [9; 16] };

fuzz_target!(|data: &[u8]| {
    let Ok(pages) = decode_piece(data, Sequence(1), TenantId(1), &KEY) else { return };
    let mut frames: Vec<Frame> = Vec::new();
    for page in &pages {
        let joined: Vec<u8> = page.frames().iter().flat_map(|frame| frame.sse_chunked()).copied().collect();
        let (whole, places) = page.whole();
        if let Some(whole) = whole.sse_chunked(places) {
            assert_eq!(whole, joined);
        }
        frames.extend_from_slice(page.frames());
    }
    for frame in &frames {
        assert!(frame.sse().ends_with(&[frame.json(), b"\n\n"].concat()));
        assert!(frame.encoded(WireFormat::Ws).to_vec().ends_with(frame.json()));
        for key in RoutingKey::ALL {
            let _ = frame.key(key);
        }
    }
    // The events that were read can be packed again, with the same result.
    let mut again = Vec::new();
    for (first, piece) in encode_pieces(&frames) {
        for page in decode_piece(&piece, first, TenantId(1), &KEY).expect("packed just now") {
            again.extend_from_slice(page.frames());
        }
    }
    let fits = |frame: &&Frame| frame.json().len() < 60 * 1024;
    let shown = |frames: &[Frame]| {
        frames.iter().filter(fits).map(|frame| frame.sse_chunked().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&again), shown(&frames));
    let mut shared = frames.into_iter().map(std::sync::Arc::new).collect();
    coalesce(&mut shared);
});
