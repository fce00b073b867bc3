//! The rows that the state holds about itself: its layout, its position in the journal, and the journal that
//! it belongs to.

use super::error::EngineError;
use super::state::{State, Value};
use crate::store::format::keys::{self, MetaKey};
use crate::store::journal::Position;

/// The layout of everything on disk. A newer one is refused; an older one is copied into this one
/// (`data_dir/migrate.rs`). In layout 4 events are in the journal, and the state is that of a position in the
/// journal. Layout 5 adds the rows of streams.
pub(crate) const SCHEMA: u32 = 5;
/// An older layout whose rows are all valid in [`SCHEMA`]. Only its mark is changed, when it is opened.
const SUBSET: u32 = 4;

/// Returns true if everything in this layout is valid in the present one.
pub(crate) fn is_readable(layout: u32) -> bool {
    matches!(layout, SCHEMA | SUBSET)
}

fn damaged(what: &str) -> EngineError {
    EngineError::Engine(format!("{what} is damaged"))
}

/// Refuses a state of another layout, and marks an empty one, or one of layout [`SUBSET`], with this layout. The mark must be there before
/// anything else, so that older versions refuse the state.
///
/// # Errors
/// [`EngineError::Layout`], or an error of the state.
pub(crate) fn check_layout(state: &State) -> Result<(), EngineError> {
    let Some(row) = state.get(&keys::meta(MetaKey::Schema))? else {
        state.write(&keys::meta(MetaKey::Schema), Some(&Value::from(&SCHEMA.to_be_bytes())))?;
        return state.sync();
    };
    let row: [u8; 4] = row.as_ref().try_into().map_err(|_| damaged("the schema row"))?;
    match u32::from_be_bytes(row) {
        SCHEMA => Ok(()),
        SUBSET => {
            state.write(&keys::meta(MetaKey::Schema), Some(&Value::from(&SCHEMA.to_be_bytes())))?;
            state.sync()
        }
        other => Err(EngineError::Layout(other)),
    }
}

/// The key of the row with the state's position.
pub(crate) fn position_key() -> Vec<u8> {
    keys::meta(MetaKey::Position)
}

/// The row that holds the state's position.
pub(crate) fn position_row(position: Position) -> Value {
    Value::from([&[1], position.0.to_be_bytes().as_slice()].concat())
}

/// The position of the state.
pub(crate) fn position(state: &State) -> Result<Position, EngineError> {
    match state.get(&position_key())? {
        None => Ok(Position(0)),
        Some(row) => match row.as_ref().split_first_chunk() {
            Some((&[1], rest)) if rest.len() == 8 => {
                let mut position = [0; 8];
                position.copy_from_slice(rest);
                Ok(Position(u64::from_be_bytes(position)))
            }
            _ => Err(EngineError::Engine("the position row is damaged".into())),
        },
    }
}

/// The id of the journal that the state belongs to; `None` if the state was never opened with one.
pub(crate) fn journal_of(state: &State) -> Result<Option<[u8; 16]>, EngineError> {
    match state.get(&keys::meta(MetaKey::Journal))? {
        None => Ok(None),
        Some(row) => match row.as_ref().split_first_chunk() {
            Some((&[1], id)) if let Ok(id) = <[u8; 16]>::try_from(id) => Ok(Some(id)),
            _ => Err(EngineError::Engine("the row of the journal's id is damaged".into())),
        },
    }
}
