#!/bin/sh
# The second stage of the Dockerfile: our wheel, installed, and what it added to /opt/mme put aside as a layer.
set -eu
layers=$1

/tool/bin/pip wheel --quiet --no-deps --no-build-isolation --no-index . -w /tmp/wheel
/tool/bin/pip --python /opt/mme/bin/python3 install --quiet --no-compile --no-deps --no-index /tmp/wheel/*.whl
rm -f /opt/mme/lib/python3*/site-packages/multi_model_endpoint-*.dist-info/direct_url.json
source=$PWD
cd /opt/mme/lib/python3*/site-packages
rm -rf container/launch/plugin && mkdir container/launch/plugin
cp -a "$source/container/launch/plugin/classes" container/launch/plugin/
cp -a "$source/handler/libhandler.so" handler/
rm -f handler/build.sh handler/*/*.c
/opt/mme/bin/python3 -m compileall -q --invalidation-mode unchecked-hash container handler

site=${PWD#/}
mkdir -p "$layers/code/$site" "$layers/code/opt/mme/bin"
cp -a container handler multi_model_endpoint-*.dist-info "$layers/code/$site/"
cp -a /opt/mme/bin/mme "$layers/code/opt/mme/bin/"
find "$layers/code" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
