#!/bin/sh
# The Dockerfile's stage of our code: our wheel, with what was compiled in it, installed, and what that added to /opt/mme put
# aside as a layer.
set -eu
layers=$1

/tool/bin/pip wheel --quiet --no-deps --no-build-isolation --no-index . -w /tmp/wheel
/tool/bin/pip --python /opt/mme/bin/python3 install --quiet --no-compile --no-deps --no-index /tmp/wheel/*.whl
rm -f /opt/mme/lib/python3*/site-packages/multi_model_endpoint-*.dist-info/direct_url.json
cd /opt/mme/lib/python3*/site-packages
/opt/mme/bin/python3 -m compileall -q --invalidation-mode unchecked-hash container handler

site=${PWD#/}
mkdir -p "$layers/code/$site" "$layers/code/opt/mme/bin"
cp -a container handler multi_model_endpoint-*.dist-info "$layers/code/$site/"
cp -a /opt/mme/bin/mme "$layers/code/opt/mme/bin/"
find "$layers/code" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
