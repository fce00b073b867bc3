//! Pages of a list: the parameters that select one, and the cursor of the next.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::domain::{PageRequest, PageStart};
use crate::error_response::ErrorResponse;
use crate::http::request::ApiRequest;
use crate::http::request::parameters::{OFFSET_MOST, PAGE_DEFAULT, PAGE_MOST, number, unknown};
use crate::http::response::ApiResponse;

/// Parses the page that the query selects. Every other parameter is passed to `other`, which returns true if
/// it has handled it.
pub(super) fn page(
    request: &ApiRequest,
    mut other: impl FnMut(&str, &str) -> Result<bool, ErrorResponse>,
) -> Result<PageRequest, ErrorResponse> {
    let mut page = PageRequest { from: PageStart::Offset(0), descending: true, limit: PAGE_DEFAULT };
    let (mut offset, mut cursor) = (None, None);
    for (name, value) in &request.parameters()? {
        match (name.as_ref(), value.as_ref()) {
            ("limit" | "offset" | "cursor" | "order", "") => {}
            ("limit", text) => page.limit = number("limit", text, 1, PAGE_MOST)? as usize,
            ("offset", text) => offset = Some(number("offset", text, 0, OFFSET_MOST)? as usize),
            ("order", "asc") => page.descending = false,
            ("order", "desc") => page.descending = true,
            ("order", _) => return Err(ErrorResponse::bad_request("order: must be asc or desc")),
            ("cursor", text) => {
                let position = position(text);
                let refused =
                    || ErrorResponse::bad_request("cursor: is not a cursor of this list; start without one");
                cursor = Some(position.ok_or_else(refused)?);
            }
            (name, value) if other(name, value)? => {}
            (name, _) => return Err(unknown(name)),
        }
    }
    page.from = match (cursor, offset) {
        (Some(_), Some(_)) => {
            return Err(ErrorResponse::bad_request("cursor and offset cannot be given together"));
        }
        (Some(position), None) => position,
        (None, offset) => PageStart::Offset(offset.unwrap_or_default()),
    };
    Ok(page)
}

pub(super) fn position(text: &str) -> Option<PageStart> {
    let raw = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (number, id) = raw.split_at_checked(8)?;
    let id =
        String::from_utf8(id.to_vec()).ok().filter(|id| (1..=crate::event::ID_BYTES).contains(&id.len()))?;
    Some(PageStart::After(u64::from_be_bytes(number.try_into().ok()?), id))
}

pub(super) fn cursor(position: &PageStart) -> Option<String> {
    match position {
        PageStart::Offset(_) => None,
        PageStart::After(number, id) => {
            Some(URL_SAFE_NO_PAD.encode([&number.to_be_bytes()[..], id.as_bytes()].concat()))
        }
    }
}

/// Returns 200 with a page and the cursor of the next one.
pub(super) fn page_response(rows: &[impl Serialize], next: Option<&PageStart>) -> ApiResponse {
    ApiResponse::list(rows, next.and_then(cursor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_cursor_round_trips_and_other_text_is_refused() {
        let at = PageStart::After(7, "agent-1".into());
        let text = cursor(&at).expect("a cursor");
        assert_eq!(position(&text), Some(at));
        for bad in ["", "AAAA", "%", &text[..10], &format!("{text}!")] {
            assert_eq!(position(bad), None, "{bad}");
        }
    }
}
