//! Reads the whole request body, then answers with its length.

use guests03::{Answer, Request, read, reply};

guests03::serve!(handle);

async fn handle(request: Request) -> Answer {
    let mut length = 0;
    read(request, async |chunk| length += chunk.len()).await;
    reply(200, &length.to_string())
}
