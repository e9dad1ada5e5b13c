"""Caches of keys and values, one a layer, so that decoding computes each token once.

``append(k, v)`` takes the keys and values of new tokens and gives those to attend to, ascending, with their true
absolute positions. `FullCache` keeps everything, `RollingCache` the last ones, `SinkCache` the first and the last ones.
What ``append`` returned is never changed afterwards.
"""

from regard.cache.base import Cache as Cache
from regard.cache.full import FullCache as FullCache
from regard.cache.windowed import RollingCache as RollingCache
from regard.cache.windowed import SinkCache as SinkCache
