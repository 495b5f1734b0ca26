# Component → host → an empty root with both, the component alone in the last layer. Built by .ci/image, which adds fixed times
# and the labels, on a machine of the platform that it is for.
#
# The Rust of rust-toolchain.toml, with a C compiler for musl. In FROM itself, because Dependabot does not follow an ARG.
FROM docker.io/library/rust:1.95.0-alpine3.23@sha256:606fd313a0f49743ee2a7bd49a0914bab7deedb12791f3a846a34a4711db7ed2 AS toolchain
RUN rustup target add wasm32-wasip2 && cargo install cargo-auditable --locked --version 0.7.7
WORKDIR /src

# The workspace with empty sources, because Cargo wants every member: so the host's build depends on no source of the
# component, nor the component's on the host's. The tests' guests lose their lists of sources.
FROM toolchain AS crates
COPY Cargo.toml Cargo.lock ./
COPY component/Cargo.toml component/
COPY host/Cargo.toml host/
COPY host/benches/Cargo.toml host/benches/
# Of the tests, .dockerignore lets the guests' manifests through and nothing else.
COPY host/tests host/tests
RUN for manifest in host/tests/*/Cargo.toml; do \
      sed -i '/^\[\[example/,$d' "$manifest" && mkdir "${manifest%/*}/src" && touch "${manifest%/*}/src/lib.rs"; done && \
    mkdir component/src host/src host/benches/src && \
    for file in component/build.rs component/src/lib.rs host/src/lib.rs host/src/main.rs host/benches/src/bench.rs host/benches/inner.rs; do \
      echo 'fn main() {}' > "$file"; done && \
    cargo fetch --locked
ENV CARGO_NET_OFFLINE=true

FROM crates AS component-build
COPY wit wit
COPY component component
RUN cargo build --locked --release --package hello --target wasm32-wasip2
COPY .ci/component-sbom .ci/notices .ci/
RUN mkdir /image && \
    .ci/component-sbom > /image/component.cdx.json && \
    .ci/notices hello wasm32-wasip2 > /image/component.notices && \
    install -m 644 target/wasm32-wasip2/release/hello.wasm /image/component.wasm && \
    find /image -exec touch -d @0 {} +

# The component alone, for an image volume. It says nothing of version or commit: its digest is the component's.
FROM scratch AS component
LABEL org.opencontainers.image.title="hello component" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=component-build /image/ /

FROM crates AS host-build
# The dependencies, in a layer that outlives a change of the host's sources.
RUN cargo auditable build --locked --release --package taffrail --target "$(uname -m)-unknown-linux-musl"
COPY host/src host/src
# `touch`: Cargo compares times, and the sources may be older than the empty ones that were built above.
RUN find host/src -exec touch {} + && \
    cargo auditable build --locked --release --package taffrail --target "$(uname -m)-unknown-linux-musl"
COPY LICENSE ./
COPY .ci/notices .ci/
RUN install -D -m 755 target/*/release/taffrail /image/taffrail && \
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt && \
    install -m 644 LICENSE /image/ && \
    .ci/notices taffrail "$(uname -m)-unknown-linux-musl" > /image/NOTICES && \
    find /image -exec touch -d @0 {} +

FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
# Known only when the component is built: .ci/image builds it first.
ARG COMPONENT_DIGEST=unknown
LABEL org.opencontainers.image.title="taffrail" \
      org.opencontainers.image.description="Taffrail with the hello component" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      taffrail.component.digest="$COMPONENT_DIGEST"
ENV TAFFRAIL_LISTEN=0.0.0.0:8080 \
    TAFFRAIL_ADMIN_LISTEN=0.0.0.0:9090 \
    TAFFRAIL_COMPONENT=/component.wasm \
    TAFFRAIL_DRAIN_DELAY=5s \
    TAFFRAIL_LOG_FORMAT=json
EXPOSE 8080 9090
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/taffrail", "check-health"]
ENTRYPOINT ["/taffrail"]
CMD ["serve"]
COPY --from=host-build /image/ /
COPY --from=component /component.* /
