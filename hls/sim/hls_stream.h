/* SPDX-License-Identifier: Apache-2.0
 * The part of Vitis' header of this name that the engine uses, for a C++ compiler. A FIFO without a bound, since
 * in a C simulation the processes of a dataflow region run one after another; reading an empty one would hang the hardware and aborts here. */
#ifndef XN_HLS_SIM_STREAM_H
#define XN_HLS_SIM_STREAM_H

#include <cstdlib>
#include <deque>

namespace hls
{
template <typename T> class stream
{
    std::deque<T> fifo;

  public:
    void write(const T &v)
    {
        fifo.push_back(v);
    }
    T read()
    {
        if (fifo.empty())
            std::abort();
        T v = fifo.front();
        fifo.pop_front();
        return v;
    }
    bool empty() const
    {
        return fifo.empty();
    }
};
} // namespace hls

#endif
