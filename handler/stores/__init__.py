"""Where artifacts come from: an S3 prefix or a directory, behind one `Store`.

Rule: an artifact is whole or it is an error of ours; no half of one and no foreign exception leaves a store.
boto3 costs 0.2 s and 40 MB, so `handler.stores.s3` is imported only when a location asks for it.
"""

from handler.stores.location import LocationInvalid, S3Location, open_store, parse_location
from handler.stores.store import Fetched, Store, StoredObject

__all__ = ["Fetched", "LocationInvalid", "S3Location", "Store", "StoredObject", "open_store", "parse_location"]
