"""
The backend `SPU` of ByteMLPerf's general_perf, for its unmodified engine (docs/byte-mlperf.md).

`install` puts two thin files into a checkout, whose classes are `CompileSide` and `RuntimeSide`.
Nothing here imports ByteMLPerf: the engine's objects are known by what it does with them.
"""
