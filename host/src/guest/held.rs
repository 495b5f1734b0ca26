//! What the host holds for a guest's handles: the fields and bodies that a guest has made, and has not dropped or sent.
//!
//! `wasmtime-wasi-http` bounds each of them and their number, and not what they are together, so they are added up here: now and
//! then, when the guest makes use of `wasi:http`, by which alone it can make them.

use std::any::Any;

use hyper::HeaderMap;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::bindings::http::types::Method;
use wasmtime_wasi_http::p2::types::{HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_http::p3;

use super::outbound::BODY_AHEAD;

/// What a handle takes beside what it stands for, in bytes: its entry in the table, its box, its children.
const HANDLE: usize = 256;
/// What a field takes beside its bytes, in bytes: an entry of the map, its place in the index, and the slack of both. Between 104 and
/// 208 by how full the map is.
const FIELD: usize = 128;

/// Uses of `wasi:http` after which what is held is added up again; with many handles, which take time to look at, a few more. Each
/// can add the largest set of fields (`--max-response-header-size` and some), or what is ahead of a body's reader.
const USES: usize = 16;
const HANDLES_PER_USE: usize = 256;

/// How many uses are left.
#[derive(Debug)]
pub(crate) struct Countdown(usize);

impl Countdown {
    /// For a guest that has made nothing yet.
    pub(crate) fn new() -> Self {
        Self(USES)
    }

    /// One use more. What is held, in bytes, if it was added up.
    pub(crate) fn count(&mut self, table: &mut ResourceTable) -> Option<usize> {
        self.0 -= 1;
        if self.0 > 0 {
            return None;
        }
        let (handles, held) = table.iter_mut().fold((0, 0), |(handles, held), entry| (handles + 1, held + cost(entry)));
        self.0 = USES + handles / HANDLES_PER_USE;
        Some(held)
    }
}

fn cost(entry: &(dyn Any + Send)) -> usize {
    HANDLE
        + if let Some(fields) = entry.downcast_ref::<FieldMap>() {
            size(fields)
        } else if let Some(response) = entry.downcast_ref::<HostOutgoingResponse>() {
            size(&response.headers) + ahead(response.body.is_some())
        } else if let Some(request) = entry.downcast_ref::<HostOutgoingRequest>() {
            let method = if let Method::Other(method) = &request.method { method.len() } else { 0 };
            let texts = [&request.authority, &request.path_with_query].map(|text| text.as_ref().map_or(0, String::len));
            size(&request.headers) + ahead(request.body.is_some()) + method + texts.iter().sum::<usize>()
        } else if let Some(response) = entry.downcast_ref::<HostIncomingResponse>() {
            size(&response.headers)
        } else if let Some(response) = entry.downcast_ref::<p3::Response>() {
            size(&response.headers)
        } else if let Some(request) = entry.downcast_ref::<p3::Request>() {
            let path = request.path_with_query.as_ref().map_or(0, |path| path.as_str().len());
            let authority = request.authority.as_ref().map_or(0, |authority| authority.as_str().len());
            size(&request.headers) + request.method.as_str().len() + path + authority
        } else {
            0
        }
}

fn size(fields: &HeaderMap) -> usize {
    let names: usize = fields.keys().map(|name| name.as_str().len()).sum();
    let values: usize = fields.values().map(|value| value.len() + FIELD).sum();
    names + values
}

/// A guest may write so much of a body before anybody reads it.
fn ahead(is_body: bool) -> usize {
    if is_body { BODY_AHEAD } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_added_up_now_and_then_and_seldom_where_that_takes_long() {
        let mut table = ResourceTable::new();
        let (mut countdown, mut counted) = (Countdown::new(), Vec::new());
        for number in 1..=1000 {
            let mut fields = FieldMap::new_mutable(usize::MAX);
            fields.append_raw("name".parse().unwrap(), "x".repeat(1000).parse().unwrap()).unwrap();
            table.push(fields).unwrap();
            if let Some(held) = countdown.count(&mut table) {
                assert_eq!(held, number * (HANDLE + FIELD + 1004));
                counted.push(number);
            }
        }
        let gaps: Vec<_> = counted.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!((counted[0], gaps[0]), (16, 16));
        assert!(gaps.is_sorted() && gaps.iter().all(|gap| *gap <= 16 + 1000 / HANDLES_PER_USE), "{gaps:?}");
    }

    #[test]
    fn a_body_that_nobody_reads_counts_with_what_may_be_written_ahead() {
        let mut table = ResourceTable::new();
        let body = || Some(wasmtime_wasi_http::WasiBody::default());
        let response =
            HostOutgoingResponse { status: hyper::StatusCode::OK, headers: FieldMap::default(), body: body() };
        table.push(response).unwrap();
        let request = HostOutgoingRequest {
            method: Method::Other("x".repeat(10)),
            scheme: None,
            authority: Some("x".repeat(20)),
            path_with_query: Some("x".repeat(30)),
            headers: FieldMap::default(),
            body: body(),
        };
        table.push(request).unwrap();
        table.push("something else").unwrap();
        let held = std::iter::repeat_with({
            let mut countdown = Countdown::new();
            move || countdown.count(&mut table)
        });
        assert_eq!(held.take(USES).flatten().collect::<Vec<_>>(), [3 * HANDLE + 2 * BODY_AHEAD + 60]);
    }
}
