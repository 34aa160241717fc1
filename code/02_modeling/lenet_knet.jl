# LeNet-5 in Julia with Knet: the third of three ways in 01_train_lenet_three_ways.ipynb, which starts this program.
#
#   julia -O1 lenet_knet.jl FOLDER LEARNING_RATE SEED CLASSES
#
# FOLDER holds IDX files without ending: images, labels, order (int32: epochs, batches, images a batch; which images,
# counted from 0, make each batch), judge-images and judge-labels (the accuracy after each epoch), test-images and
# test-labels. Standard output gets one line of JSON an epoch, and a last one:
#
#   {"epoch": 1, "loss": 0.31, "accuracy": 0.95, "seconds": 12.3}
#   {"parameters": 61706, "test_accuracy": 0.96}
#
# Knet 1.4.10 on Julia 1.6 (julia -e 'using Pkg; Pkg.add(name="Knet", version="1.4.10")'). The array type is named, so
# that it computes on the CPU, as the other two do, also where there is a GPU.

using Knet
using Random

const CPU = Array{Float32}

# == The network ==

# A layer is a struct that can be called. Knet's arrays are (width, height, channels, images): what comes first lies
# closest in memory, which is the other way round from NumPy. An IDX image read as it lies is therefore an array whose
# first index is the column.
struct Conv
    w
    b
    padding
end
Conv(side::Int, from::Int, to::Int, padding::Int) =
    Conv(param(side, side, from, to; atype=CPU), param0(1, 1, to, 1; atype=CPU), padding)

# relu before or after taking the largest of four is the same; after it there are a quarter as many to compute.
(layer::Conv)(x) = relu.(pool(conv4(layer.w, x; padding=layer.padding) .+ layer.b))

struct Dense
    w
    b
    f
end
Dense(from::Int, to::Int, f) = Dense(param(to, from; atype=CPU), param0(to; atype=CPU), f)
(layer::Dense)(x) = layer.f.(layer.w * mat(x) .+ layer.b)

struct LeNet
    layers
end
LeNet(classes::Int) = LeNet((
    Conv(5, 1, 6, 2),
    Conv(5, 6, 16, 0),
    Dense(400, 120, relu),
    Dense(120, 84, relu),
    Dense(84, classes, identity),
))

# Called with images it gives scores (classes, images); called with images and labels, the loss that is to shrink.
function (network::LeNet)(x)
    for layer in network.layers
        x = layer(x)
    end
    return x
end
(network::LeNet)(x, labels) = nll(network(x), labels)

parameters(network::LeNet) = [p for layer in network.layers for p in (layer.w, layer.b)]

# == Training ==

# Pixels 0..1 as (28, 28, 1, images) and labels from 1, as Julia and Knet count.
batch(images, labels, rows) = (reshape(Float32.(images[:, :, rows]) ./ 255, 28, 28, 1, :), labels[rows])

# 500 images at a time.
share_right(network, images, labels) = Float64(
    accuracy(network; data=(batch(images, labels, part) for part in Iterators.partition(1:length(labels), 500))))

function train(network, images, labels, order, judge, rate)
    steps, epochs = size(order, 2), size(order, 3)
    done = 0
    for epoch in 1:epochs
        batches = (batch(images, labels, order[:, step, epoch]) for step in 1:steps)
        started, total = time(), 0.0
        # `adam` is lazy: each turn of this loop computes one loss, its gradients, and updates the parameters. Each
        # parameter carries the state of its own optimiser once `adam` has seen it.
        for loss in adam(network, batches; lr=rate)
            total += Float64(loss)
            done += 1
            for p in parameters(network)
                p.opt.lr = rate * (1 - done / (steps * epochs))
            end
        end
        seconds, right = time() - started, share_right(network, judge...)
        say("epoch" => epoch, "loss" => total / steps, "accuracy" => right, "seconds" => seconds)
    end
end

# == Files ==

# An IDX file: two zero bytes, the type, the number of dimensions; each size as a big-endian UInt32; the values, big-
# endian too. The sizes are reversed here: the format's last dimension runs fastest, as Julia's first one does.
function read_idx(path)
    bytes = read(path)
    type, dimensions = Dict(0x08 => UInt8, 0x0c => Int32)[bytes[3]], Int(bytes[4])
    start = 5 + 4 * dimensions
    sizes = Int.(ntoh.(reinterpret(UInt32, bytes[5:start - 1])))
    return reshape(ntoh.(reinterpret(type, bytes[start:end])), reverse(sizes)...)
end

# One object of JSON a line, of numbers only.
function say(pairs...)
    println("{", join(("\"$key\": $value" for (key, value) in pairs), ", "), "}")
    flush(stdout)
end

function main(folder, rate, seed, classes)
    part(name) = read_idx(joinpath(folder, name))
    labelled(images, labels) = (part(images), Int.(part(labels)) .+ 1)
    Random.seed!(seed)
    network = LeNet(classes)
    order = Int.(part("order")) .+ 1
    train(network, labelled("images", "labels")..., order, labelled("judge-images", "judge-labels"), rate)
    test = share_right(network, labelled("test-images", "test-labels")...)
    say("parameters" => sum(length(p.value) for p in parameters(network)), "test_accuracy" => test)
end

if abspath(PROGRAM_FILE) == @__FILE__
    main(ARGS[1], parse(Float64, ARGS[2]), parse(Int, ARGS[3]), parse(Int, ARGS[4]))
end
